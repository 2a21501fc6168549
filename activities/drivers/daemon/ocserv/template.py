"""What a template of ocserv's configuration leaves to penstock, so that instances stand side by side."""

import string

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
FILLED = frozenset({"port", "device", "pool4", "netmask4", "pool6", "config", "run"})
CREDENTIAL = "credential_"
_ELSEWHERE = ("pkcs11:", "tpmkey:", "system:")
"""Keys that stay in a device: ocserv names them by an address."""


def require_template(text: str, name: str) -> None:
    """Refuse a template that lacks a placeholder, or has one that nobody fills.

    Raises:
        BadInput: with every setting that is wrong, and the line that mends it.
    """
    wrong, settings = list[str](), dict[str, list[str]]()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#"):
            continue
        key, _, value = line.partition("=")
        settings.setdefault(key.strip(), []).append(value.strip().strip("\"'"))
        wrong += [f"line {number}: {problem}" for problem in _unfilled(line)]
    for setting, filler in NEEDED.items():
        values = settings.get(setting, [])
        if not any(_is_left(value, filler) for value in values):
            said = f"says `{values[0]}`" if values else "is missing"
            wrong.append(f"{setting} {said}, write `{setting} = {filler}`")
    if wrong:
        raise BadInput(f"{name} is no template of ocserv's configuration: {'; '.join(wrong)}")


def credentials_in(text: str) -> frozenset[str]:
    """Return the names of the credentials that instances of a template are to be given."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    names = string.Template("\n".join(lines)).get_identifiers()
    return frozenset(name.removeprefix(CREDENTIAL) for name in names if name.startswith(CREDENTIAL))


def _is_left(value: str, filler: str) -> bool:
    """Return whether the value is left to penstock; a credential may have any name, or stay in a device."""
    if filler.startswith(f"${CREDENTIAL}"):
        return f"${CREDENTIAL}" in value or f"${{{CREDENTIAL}" in value or value.startswith(_ELSEWHERE)
    return filler in value.replace("${", "$").replace("}", "")


def _unfilled(line: str) -> list[str]:
    template = string.Template(line)
    if not template.is_valid():
        return ["a $ begins no placeholder, write $$ for a dollar"]
    names = [name for name in template.get_identifiers() if not name.startswith(CREDENTIAL)]
    known = ", ".join(f"${name}" for name in sorted(FILLED))
    return [f"${name} is none of {known}, ${CREDENTIAL}NAME" for name in names if name not in FILLED]
