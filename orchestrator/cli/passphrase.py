"""Passphrases and PINs of keys: asked on the terminal, or read from where somebody else put them.

Never from the command line's own words, which every process of a machine may read.
"""

import getpass
import os
from collections.abc import Callable
from pathlib import Path

from activities.drivers.credentials import Credentials
from policies.model.errors import BadInput

Passphrase = Callable[[str], str]
"""Returns the passphrase of the key of that name, when the key turns out to need one."""
LONGEST = 4096
TERMINAL = Path("/dev/tty")


def passphrase_from(reference: str | None) -> Passphrase:
    """Return what reads passphrases from `fd:N`, `credential:NAME`, `file:PATH` or `vault:…#…`.

    `credential:NAME` is one that systemd has loaded for this unit (LoadCredentialEncrypted=). Without a
    reference the terminal is asked.

    Raises:
        BadInput: the reference is none of these; it may be the passphrase itself, and is not repeated.
    """
    kind, _, rest = (reference or "").partition(":")
    match kind:
        case "" if reference is None:
            return _asked
        case "fd" if rest.isdecimal():
            return lambda key: _read(int(rest), f"descriptor {rest}", key)
        case "credential" if rest and "/" not in rest:
            return lambda key: _credential(rest, key)
        case "file" | "vault":
            return lambda _: Credentials(os.environ).resolve(str(reference)).get_secret_value()
        case _:
            raise BadInput(
                "a passphrase is named as fd:N, credential:NAME, file:PATH or vault:…#…, never written down"
            )


def _asked(key: str) -> str:
    try:
        with TERMINAL.open():
            pass
    except OSError:
        raise BadInput(
            f"{key} has a passphrase, and there is no terminal to ask on; say --passphrase-from fd:N, "
            "credential:NAME or file:PATH"
        ) from None
    return getpass.getpass(f"Passphrase of {key}: ")


def _credential(name: str, key: str) -> str:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is None:
        raise BadInput(f"systemd gave this process no credentials; its unit needs LoadCredential={name}:PATH")
    try:
        descriptor = os.open(Path(folder, name), os.O_RDONLY)
    except OSError as error:
        said = f"{name} of {key} is not among this unit's credentials ({error.strerror})"
        raise BadInput(f"{said}; add LoadCredential={name}:PATH") from None
    return _read(descriptor, f"the credential {name}", key)


def _read(descriptor: int, where: str, key: str) -> str:
    try:
        with open(descriptor, encoding="utf-8") as file:
            found = file.readline(LONGEST).removesuffix("\n")
    except (OSError, ValueError) as error:
        raise BadInput(
            f"the passphrase of {key} cannot be read from {where}: {type(error).__name__}"
        ) from None
    if not found:
        raise BadInput(f"{where} is empty; it should hold the passphrase of {key}")
    return found
