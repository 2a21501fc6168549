"""Files that OpenVPN reads for single users, and every option by which one is given an address of its own.

openvpn(8) has them under `client-config-dir`; they are written like its own configuration.
"""

from collections.abc import Iterable, Iterator, Sequence

from activities.drivers.daemon.openvpn.config import Option, options_in
from activities.drivers.daemon.port import UserFile
from activities.drivers.daemon.template import lines_of
from policies.model.errors import BadInput

NAMED_BY = ("client-config-dir",)
"""Options that name a folder of such files."""
GIVING = ("ifconfig-push", "ifconfig-ipv6-push")
"""Options that give a user an address."""
TAKEN = ("ifconfig", "ifconfig-ipv6")
"""Options by which a client takes an address, when they are pushed to it."""
INSTEAD = (
    "leave it out, and write the user's name and an address of each slot's pool into the file of "
    "`ifconfig-pool-persist $credential_addresses 0`"
)


def user_files_in(text: str) -> tuple[UserFile, ...]:
    """Return the folders of files for users that a configuration names."""
    options = options_in("\n".join(lines_of(text)))
    return tuple(UserFile(one.number, one.name, one.value) for one in options if one.name in NAMED_BY)


def addresses_in(text: str) -> Sequence[str]:
    """Return what such a file says of addresses, also in files that it includes and nobody reads."""
    try:
        options = options_in("\n".join(lines_of(text)))
    except BadInput as error:
        return (f"{error}",)
    included = (
        f"line {one.number}: config brings lines that are not read; write them out"
        for one in options
        if one.name == "config"
    )
    return (*given_in(options), *included)


def given_in(options: Iterable[Option]) -> Iterator[str]:
    """Yield each option that gives users an address, which is of one slot's pool at most, and what to do."""
    for option in options:
        pushed = _pushed(option)
        name = f"push {pushed.name}" if pushed is not None else option.name
        if option.name in GIVING or (pushed is not None and pushed.name in TAKEN):
            yield f"line {option.number}: {name} gives the same address in every slot; {INSTEAD}"


def _pushed(option: Option) -> Option | None:
    """Return the option that clients are sent, read as they read it."""
    if option.name != "push" or not option.words:
        return None
    try:
        return next(iter(options_in(option.words[0])), None)
    except BadInput:
        return None
