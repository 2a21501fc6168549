"""Find secrets in strongSwan's own files: shared keys of RADIUS, passwords, passphrases and PINs."""

import re
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from activities.drivers.daemon.port import Environment
from activities.drivers.daemon.strongswan.settings import options_of
from activities.drivers.daemon.strongswan.template import PASSWORD, SECRETS
from activities.drivers.daemon.template import SECRET, filled, is_left
from policies.model.errors import BadInput

_SETTINGS = re.compile(r"(?P<own>(?:^|/)(?:strongswan\.d|swanctl)/)|\.conf(?:\.template)?$")
"""Names of files whose settings are in sections: strongswan.conf, swanctl.conf and what these include.

What lies in their own folders may be included into a section, and has none then.
"""
_LEGACY = re.compile(r"(?:^|/)ipsec\.secrets(?:\.d/[^/]+|\.inc)?$|\.secrets$")
"""Names of files that `ipsec` and the plugin `stroke` read (ipsec.secrets(5))."""
_LINE = re.compile(
    r"^[^#\n]*:[ \t]*(?:"
    r"(PSK|EAP|XAUTH|NTLM|PPK)[ \t]+(?!%)\S"
    r"|(RSA|ECDSA|BLISS|PKCS8|P12|PIN)[ \t]+\S+[ \t]+(?!%prompt|#)\S)",
    re.MULTILINE | re.IGNORECASE,
)


def secret_in(name: str, text: str) -> str | None:
    """Return what kind of secret a file of this name has, None for none; it is not quoted."""
    place = PurePosixPath(name.replace("!", "/")).as_posix()
    if _LEGACY.search(place) and (found := _LINE.search(text)):
        return f"strongSwan {(found[1] or found[2]).upper()} secret"
    named = _SETTINGS.search(place)
    if named is not None and (named["own"] or "{" in text):
        for option, value in options_of(text):
            if (named["own"] or "." in option) and _is_secret(option, value):
                return f"strongSwan {option}"
    return None


def filled_whole(
    environment: Environment, template: Path, secret: Callable[[str], str]
) -> tuple[str, frozenset[str]]:
    """Return what `filled` does, of which charon reads each secret to its end.

    Without quotation marks `#` begins a comment and `}` ends a section: users would have half of a secret.

    Raises:
        BadInput: As `filled` raises it, or a secret has to stand in quotation marks.
    """
    secrets = dict[str, str]()

    def noted(name: str) -> str:
        said = secret(name)
        secrets[_mark_of(name)] = said.removesuffix("\n").removesuffix("\r")
        return said

    config, wanted = filled(environment, template, noted)
    marked, _ = filled(environment, template, _mark_of)
    for meant, read in zip_longest(options_of(marked), options_of(config)):
        option, value = meant or ("", "")
        for mark, said in secrets.items():
            value = value.replace(mark, said)
        if read != (option, value):
            raise BadInput(
                f"{template.name}: the secret at {option} has characters that charon reads otherwise there: "
                f'write it in quotation marks, "${SECRET}NAME"'
            )
    return config, wanted


def _mark_of(name: str) -> str:
    """Return what stands for a secret while it is found out where its value ends."""
    return f"penstock-fills-{name}-here"


def _is_secret(option: str, value: str) -> bool:
    """Return whether a value is a secret, and no name by which penstock fills one in."""
    in_address = PASSWORD.search(value)
    said = value if SECRETS.fullmatch(option) else in_address["password"] if in_address else ""
    return bool(said) and not is_left(said, f"${SECRET}NAME")
