"""A release's template of a daemon's configuration, and how it is filled for one instance."""

import string
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from activities.drivers.daemon.port import CONFIG, RUN, Environment, Secret
from policies.model.errors import BadInput

FILLED = frozenset({"port", "device", "pool4", "netmask4", "users4", "pool6", "gateway4", "config", "run"})
"""Placeholders that penstock fills, besides credentials.

`users4` is the pool without its first address, which is the daemon's own; `gateway4` is what users dial.
"""
CREDENTIAL = "credential_"
FOLDER = "credentials"
"""In the config's folder: the credentials of an instance, each in a file of its own."""


class Accounts(NamedTuple):
    """As whom a template has its daemon run: the key, and each value that it has."""

    users: tuple[str, Sequence[str]]
    groups: tuple[str, Sequence[str]]


def credentials_in(text: str) -> frozenset[str]:
    """Return the names of the credentials that instances of a template are to be given."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    names = string.Template("\n".join(lines)).get_identifiers()
    return frozenset(name.removeprefix(CREDENTIAL) for name in names if name.startswith(CREDENTIAL))


def unfilled(line: str) -> list[str]:
    """Return what is wrong with the placeholders of a line of a template."""
    template = string.Template(line)
    if not template.is_valid():
        return ["a $ begins no placeholder, write $$ for a dollar"]
    names = [name for name in template.get_identifiers() if not name.startswith(CREDENTIAL)]
    known = ", ".join(f"${name}" for name in sorted(FILLED))
    return [f"${name} is none of {known}, ${CREDENTIAL}NAME" for name in names if name not in FILLED]


def is_left(value: str, filler: str) -> bool:
    """Return whether the value is left to penstock; a credential may have any name."""
    if filler.startswith(f"${CREDENTIAL}"):
        return f"${CREDENTIAL}" in value or f"${{{CREDENTIAL}" in value
    return filler in value.replace("${", "$").replace("}", "")


def filled(environment: Environment, template: Path) -> tuple[str, frozenset[str]]:
    """Return the template filled for this instance, and the names of the credentials that it wants.

    A line that needs the slot's IPv6 pool is left out where the slot has none.

    Raises:
        BadInput: The template has a placeholder that nobody fills.
    """
    values, wanted, lines = _values(environment), set[str](), list[str]()
    for line in template.read_text().splitlines():
        if "$" not in line or line.lstrip().startswith("#"):
            lines.append(line)
            continue
        names = set(string.Template(line).get_identifiers())
        if environment.slot.pool6 is None and "pool6" in names:
            continue
        wanted |= {name.removeprefix(CREDENTIAL) for name in names if name.startswith(CREDENTIAL)}
        lines.append(_filled(line, names, values, template))
    return "\n".join(lines) + "\n", frozenset(wanted)


def write_credentials(names: Iterable[str], credentials: Mapping[str, Secret], into: Path) -> None:
    """Write these credentials to the folder, which is made, readable by root only.

    Raises:
        BadInput: One of them cannot be read.
        Unavailable: The store of one of them does not answer.
    """
    into.mkdir(mode=0o700)
    for name in sorted(names):
        try:
            content = credentials[name]()
        except BadInput as error:
            raise BadInput(f"credential {name} cannot be read: {error}") from error
        (into / name).touch(mode=0o600)
        (into / name).write_text(f"{content}\n")


def require_given(wanted: Iterable[str], credentials: Mapping[str, Secret], template: Path) -> None:
    """Raise BadInput when the template wants a credential that this gateway was not given."""
    if missing := sorted(set(wanted) - set(credentials)):
        raise BadInput(f"{template.name} needs credential {missing[0]}, which this gateway was not given")


def _values(environment: Environment) -> dict[str, str]:
    slot = environment.slot
    return {
        "port": str(slot.port),
        "device": slot.device,
        "pool4": str(slot.pool4.network_address),
        "netmask4": str(slot.pool4.netmask),
        "users4": f"{slot.pool4[2]}-{slot.pool4[-2]}",
        "pool6": str(slot.pool6),
        "gateway4": str(environment.gateway.address4),
        "config": str(CONFIG),
        "run": str(RUN),
    }


def _filled(line: str, names: Iterable[str], values: Mapping[str, str], template: Path) -> str:
    paths = {
        name: f"{CONFIG}/{FOLDER}/{name.removeprefix(CREDENTIAL)}"
        for name in names
        if name.startswith(CREDENTIAL)
    }
    try:
        return string.Template(line).substitute({**values, **paths})
    except (KeyError, ValueError) as error:
        raise BadInput(f"{template.name} has a placeholder nobody fills: {error}") from error
