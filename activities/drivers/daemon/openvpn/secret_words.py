"""Find secrets among the words of OpenVPN's options: variables, and arguments of plugins and scripts.

A release is read by many. So a template names such a secret as `$secret_NAME`, and the gateway fills it in.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from activities.drivers.daemon.openvpn.config import Option, options_in
from activities.drivers.daemon.template import CREDENTIAL, SECRET, is_left
from policies.model.errors import BadInput
from policies.redaction import PROGRAM_OPTIONS
from policies.secret_names import is_secret_name

POSITIONS: Mapping[str, int] = {"duo_openvpn.so": 1, "duo_openvpn.py": 1}
"""Plugins with a secret among their arguments, and its place there; Duo's are `IKEY SKEY HOST`."""
PAM_PLUGIN = "openvpn-plugin-auth-pam.so"
_ACCOUNT = ("-u", "--user", "--proxy-user")
"""Options of programs, such as curl(1), that a name and a password follow as `NAME:PASSWORD`."""
_OF_A_USER = ("USERNAME", "PASSWORD", "COMMONNAME", "OTP")
"""Words in the arguments of that plugin for which OpenVPN fills in what a user types."""
_NO_SECRETS = frozenset(("", "0", "1", "yes", "no", "on", "off", "true", "false", "none"))


def secrets_in(options: Sequence[Option]) -> Iterator[str]:
    """Yield each secret that is not left to the gateway, with its line and what to write."""
    for option in map(_carried, options):
        if option.name in ("setenv", "setenv-safe"):
            yield from _in_a_variable(option)
        elif option.name in PROGRAM_OPTIONS and option.words:
            yield from _in_arguments(option)


def _in_a_variable(option: Option) -> Iterator[str]:
    name, value = (*option.words, "", "")[:2]
    if is_secret_name(name) and not _is_harmless(value):
        shown = f"{option.name} {name}"
        yield f"line {option.number}: {shown} has a secret, write `{shown} ${SECRET}NAME`"


def _in_arguments(option: Option) -> Iterator[str]:
    program, *arguments = " ".join(option.words).split()
    file = PurePosixPath(program).name
    for place, (before, argument) in enumerate(zip(("", *arguments), arguments, strict=False)):
        name, separator, value = argument.partition("=")
        if place == POSITIONS.get(file):
            what, value = f"argument {place + 1}", argument
        elif file == PAM_PLUGIN:
            what, value = before, "" if any(word in argument for word in _OF_A_USER) else argument
            if place == 0 or place % 2 or not is_secret_name(before.rstrip(":")):
                continue
        elif separator and is_secret_name(name.lstrip("-")):
            what = name
        elif before in _ACCOUNT and ":" in argument:
            what, value = before, argument.partition(":")[2]
        elif before.startswith("-") and is_secret_name(before.lstrip("-")):
            what, value = before, argument
        else:
            continue
        if not _is_harmless(value):
            shown = f"{what} of {option.name} {program}"
            yield f"line {option.number}: {shown} is a secret, write ${SECRET}NAME there"


def _carried(option: Option) -> Option:
    """Return the option that clients are sent, with the line of the one that sends it."""
    if option.name != "push" or not option.words:
        return option
    try:
        found = next(iter(options_in(option.words[0])), option)
    except BadInput:
        return option
    return found._replace(number=option.number)


def _is_harmless(value: str) -> bool:
    """Return whether it is a path, a switch, or a name for which a gateway fills in the secret."""
    left = any(is_left(value, f"${kind}NAME") for kind in (SECRET, CREDENTIAL))
    return left or value.startswith("/") or value.lower() in _NO_SECRETS
