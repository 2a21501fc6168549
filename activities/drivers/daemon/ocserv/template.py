"""What a template of ocserv's configuration leaves to penstock, so that instances stand side by side."""

import re
from collections.abc import Iterator, Sequence

from activities.drivers.daemon.ocserv.config import Line, is_true, lines_of, number_in, values_of
from activities.drivers.daemon.template import CREDENTIAL, SECRET, Accounts, is_left, unfilled
from policies.model.errors import BadInput

NEEDED = {
    "tcp-port": "$port",
    "device": "$device",
    "ipv4-network": "$pool4",
    "ipv4-netmask": "$netmask4",
    "socket-file": "$run/ocserv.sock",
    "occtl-socket-file": "$run/occtl.sock",
    "server-key": "$credential_key",
}
"""Settings that differ from slot to slot or belong into no release, each with what fills it."""
ALLOWED = {
    "udp-port": "$port",
    "ipv6-network": "$pool6",
    "pin-file": "$credential_pin",
    "srk-pin-file": "$credential_pin",
    "key-pin": "$secret_pin",
    "srk-pin": "$secret_pin",
    "camouflage_secret": "$secret_camouflage",
}
"""Settings that a template may leave out, and that are left to penstock where it has them."""
_NONE = {"udp-port": "0"}
"""What such a setting may say beside that."""
_ELSEWHERE = ("pkcs11:", "tpmkey:", "system:")
"""Keys that stay in a device: ocserv names them by an address."""
_USERS = re.compile(r"(?:passwd|otp)\s*=\s*([^,\]]*)", re.IGNORECASE)
_LEGACY_USERS = re.compile(r"plain\[\s*([/.][^,\]]*)", re.IGNORECASE)


def require_template(text: str, name: str) -> None:
    """Refuse a template that lacks a placeholder, has one that is not filled, or says twice what is ours.

    Of most settings ocserv takes the last line: each of them has to be left, also in sections.

    Raises:
        BadInput: with every setting that is wrong, and the line that mends it.
    """
    wrong = unfilled(text)
    try:
        lines = lines_of(text)
    except BadInput as error:
        wrong.append(str(error))
    else:
        wrong += _wrong(lines)
    if wrong:
        raise BadInput(f"{name} is no template of ocserv's configuration: {'; '.join(wrong)}")


def accounts_in(text: str) -> Accounts:
    """Return the user and the group as which a template has ocserv run."""
    users, groups = (tuple(values_of(text, key)) for key in ("run-as-user", "run-as-group"))
    return Accounts(("run-as-user", users), ("run-as-group", groups))


def _wrong(lines: Sequence[Line]) -> Iterator[str]:
    for setting, filler in (NEEDED | ALLOWED).items():
        said = [line for line in lines if line.key == setting]
        if setting in NEEDED and not any(not line.section for line in said):
            yield f"{setting} is missing, write `{setting} = {filler}`"
        for line in said:
            if not _is_left(line, filler):
                again = f"line {line.number}: " if len(said) > 1 else ""
                yield f"{again}{setting} says `{_shown(line)}`, write `{setting} = {filler}`"
    for line in lines:
        if line.key == "ipv6-prefix":
            yield f"line {line.number}: ipv6-prefix is not for a template, leave it out"
        elif line.key == "max-clients" and number_in(line.value):
            yield (
                f"line {line.number}: max-clients is {line.value}, and a gateway's users are counted by its "
                "pool and its capacity; write `max-clients = 0`"
            )
        elif line.key in ("auth", "enable-auth"):
            yield from _users(line)
    asked = [line for line in lines if line.key == "use-occtl" and not line.section]
    if asked and not is_true(asked[-1].value):
        yield f"use-occtl says `{asked[-1].value}`, write `use-occtl = true`"


def _users(line: Line) -> Iterator[str]:
    """A list of users has hashes of their passwords."""
    for path in (*_USERS.findall(line.value), *_LEGACY_USERS.findall(line.value)):
        if not is_left(path.strip(), f"${CREDENTIAL}users"):
            yield f"line {line.number}: {line.key} names {path.strip()}, write `${CREDENTIAL}users` there"


def _is_left(line: Line, filler: str) -> bool:
    """Return whether the value is left to penstock, or its key stays in a device."""
    in_a_device = line.key == "server-key" and line.value.startswith(_ELSEWHERE)
    return in_a_device or line.value == _NONE.get(line.key) or is_left(line.value, filler)


def _shown(line: Line) -> str:
    """Return what may be quoted: a secret is not."""
    return "..." if ALLOWED.get(line.key, "").startswith(f"${SECRET}") else line.value
