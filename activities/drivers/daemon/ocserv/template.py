"""What a template of ocserv's configuration leaves to penstock, so that instances stand side by side."""

from activities.drivers.daemon.template import CREDENTIAL, Accounts, is_left, unfilled
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
_ELSEWHERE = ("pkcs11:", "tpmkey:", "system:")
"""Keys that stay in a device: ocserv names them by an address."""


def require_template(text: str, name: str) -> None:
    """Refuse a template that lacks a placeholder, or has one that nobody fills.

    Raises:
        BadInput: with every setting that is wrong, and the line that mends it.
    """
    wrong, settings = list[str](), _settings_in(text)
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.lstrip().startswith("#"):
            wrong += [f"line {number}: {problem}" for problem in unfilled(line)]
    for setting, filler in NEEDED.items():
        values = settings.get(setting, [])
        if not any(_is_left(value, filler) for value in values):
            said = f"says `{values[0]}`" if values else "is missing"
            wrong.append(f"{setting} {said}, write `{setting} = {filler}`")
    if wrong:
        raise BadInput(f"{name} is no template of ocserv's configuration: {'; '.join(wrong)}")


def accounts_in(text: str) -> Accounts:
    """Return the user and the group as which a template has ocserv run."""
    settings = _settings_in(text)
    users, groups = (tuple(settings.get(key, ())) for key in ("run-as-user", "run-as-group"))
    return Accounts(("run-as-user", users), ("run-as-group", groups))


def _settings_in(text: str) -> dict[str, list[str]]:
    settings = dict[str, list[str]]()
    for line in text.splitlines():
        if not line.lstrip().startswith("#"):
            key, _, value = line.partition("=")
            settings.setdefault(key.strip(), []).append(value.strip().strip("\"'"))
    return settings


def _is_left(value: str, filler: str) -> bool:
    """Return whether the value is left to penstock, or its key stays in a device."""
    in_a_device = filler.startswith(f"${CREDENTIAL}") and value.startswith(_ELSEWHERE)
    return in_a_device or is_left(value, filler)
