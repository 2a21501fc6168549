"""What a template of OpenVPN's configuration leaves to penstock, so that instances stand side by side."""

from collections.abc import Iterator

from activities.drivers.daemon.openvpn.management import SOCKET
from activities.drivers.daemon.template import Accounts, is_left, unfilled
from policies.model.errors import BadInput

NEEDED = {
    "port": "$port",
    "dev": "$device",
    "server": "$pool4 $netmask4",
    "management": f"$run/{SOCKET} unix",
    "key": "$credential_key",
}
"""Options that differ from slot to slot or belong into no release, each with what fills it."""
OURS = (
    "daemon",
    "log",
    "log-append",
    "syslog",
    "inetd",
    "cd",
    "chroot",
    "writepid",
    "management-hold",
    "config",
)
"""Options that would take the instance, its log or its folders away from us, or bring what nobody signed."""

BY_UDP = ("explicit-exit-notify",)
"""Options that say nothing over TCP; OpenVPN before 2.6 does not start with them there."""


def require_template(text: str, name: str) -> None:
    """Refuse a template that lacks a placeholder, or has one that nobody fills.

    Raises:
        BadInput: with every option that is wrong, and the line that mends it.
    """
    wrong, said = list[str](), dict[str, list[str]]()
    for number, line in enumerate(text.splitlines(), start=1):
        wrong += [f"line {number}: {problem}" for problem in unfilled(_without_comment(line))]
    for option, value in options_of(text):
        said.setdefault(option, []).append(value)
        if option in OURS:
            wrong.append(f"{option} is not for a template, leave it out")
    if any(value.startswith("tcp") for value in said.get("proto", [])):
        wrong += [f"{option} is for UDP, leave it out over TCP" for option in BY_UDP if option in said]
    for option, filler in NEEDED.items():
        values = said.get(option, [])
        if not any(all(is_left(value, one) for one in filler.split()) for value in values):
            have = f"says `{values[0]}`" if values else "is missing"
            wrong.append(f"{option} {have}, write `{option} {filler}`")
    if wrong:
        raise BadInput(f"{name} is no template of OpenVPN's configuration: {'; '.join(wrong)}")


def accounts_in(text: str) -> Accounts:
    """Return the user and the group as which a template has OpenVPN run."""
    said = list(options_of(text))
    users, groups = (tuple(value for option, value in said if option == key) for key in ("user", "group"))
    return Accounts(("user", users), ("group", groups))


def options_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield each option that a configuration gives and its value, without comments and inline files."""
    return ((option, value) for _, option, value in numbered_options_of(text))


def numbered_options_of(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the same with the number of each line."""
    inline = ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = _without_comment(raw).strip()
        if inline:
            inline = "" if line == f"</{inline}>" else inline
        elif line.startswith("<") and line.endswith(">"):
            inline = line[1:-1]
        elif line:
            option, _, value = line.partition(" ")
            yield number, option.removeprefix("--"), value.strip()


def _without_comment(line: str) -> str:
    return "" if line.lstrip().startswith(("#", ";")) else line
