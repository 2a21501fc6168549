"""A release's template of a daemon's configuration, and how it is filled for one instance."""

import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from activities.drivers.daemon.port import CONFIG, RUN, Environment, Secret
from policies.model.errors import BadInput
from policies.secret_names import secret_forms_in

FILLED = frozenset(
    {"port", "device", "pool4", "netmask4", "own4", "users4", "pool6", "own6", "gateway4", "config", "run"}
)
"""Placeholders that penstock fills, besides credentials.

`own4` and `own6` are the first addresses of the pools, which are the daemon's own. `users4` is the pool
without that address; `gateway4` is what users dial.
"""
_OF_POOL6 = frozenset({"pool6", "own6"})
"""Placeholders that a slot without a pool of IPv6 has nothing for."""
CREDENTIAL = "credential_"
SECRET = "secret_"  # noqa: S105 - how placeholders begin
"""Filled by what is in a credential itself, for a daemon that reads it from no file of its own."""
FOLDER = "credentials"
"""In the config's folder: the credentials of an instance, each in a file of its own."""
_NOT_PRINTED = re.compile("[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")
"""What ends a line to some readers and to others not, or shows nothing."""


def lines_of(text: str) -> list[str]:
    """Return the lines of a template; a byte order mark and carriage returns before a line's end are none."""
    lines = text.removeprefix("\ufeff").removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in lines]


def is_comment(line: str) -> bool:
    """Return whether a whole line says nothing to any of the daemons, whatever placeholders it has."""
    return line.lstrip().startswith(("#", ";"))


class Accounts(NamedTuple):
    """As whom a template has its daemon run: the key, and each value that it has."""

    users: tuple[str, Sequence[str]]
    groups: tuple[str, Sequence[str]]


def credentials_in(text: str) -> frozenset[str]:
    """Return the names of the credentials that instances of a template are to be given."""
    lines = [line for line in lines_of(text) if not is_comment(line)]
    names = string.Template("\n".join(lines)).get_identifiers()
    return frozenset(_credential(name) for name in names if name.startswith((CREDENTIAL, SECRET)))


def unfilled(text: str) -> list[str]:
    """Return what is wrong with the placeholders and characters of a template, each with its line.

    A secret that its form shows is one that no placeholder stands for, in a template of any daemon.
    """
    wrong = list[str]()
    for number, line in enumerate(lines_of(text), start=1):
        if _NOT_PRINTED.search(line):
            wrong.append(f"line {number}: it has a character that shows nothing, write the line again")
        if not is_comment(line):
            wrong += [f"line {number}: {problem}" for problem in (*_unfilled(line), *_secrets(line))]
    return wrong


def _unfilled(line: str) -> list[str]:
    template = string.Template(line)
    if not template.is_valid():
        return ["a $ begins no placeholder, write $$ for a dollar"]
    names = [name for name in template.get_identifiers() if not name.startswith((CREDENTIAL, SECRET))]
    known = ", ".join(f"${name}" for name in sorted(FILLED))
    return [
        f"${name} is none of {known}, ${CREDENTIAL}NAME, ${SECRET}NAME"
        for name in names
        if name not in FILLED
    ]


def _secrets(line: str) -> Iterator[str]:
    for found in secret_forms_in(line):
        if not is_left(found.value, f"${SECRET}NAME"):
            yield f"it has the {found.kind}, write ${SECRET}NAME there"


def is_left(value: str, filler: str) -> bool:
    """Return whether the value is left to penstock, whole; a credential may have any name."""
    for kind in (CREDENTIAL, SECRET):
        if filler.startswith(f"${kind}"):
            return re.fullmatch(rf"\$(?:{kind}\w+|\{{{kind}\w+\}})", value) is not None
    return filler == value.replace("${", "$").replace("}", "")


def filled(
    environment: Environment, template: Path, secret: Callable[[str], str]
) -> tuple[str, frozenset[str]]:
    """Return the template filled for this instance, and the names of the credentials that it wants.

    A line that needs the slot's IPv6 pool is left out where the slot has none.

    Args:
        environment: Where the instance is.
        template: The release's.
        secret: What is in a credential; asked for those that stand in the configuration itself.

    Raises:
        BadInput: The template has a placeholder that is not filled, or a secret is not one line.
    """
    values, wanted, lines = _values(environment), set[str](), list[str]()
    for line in lines_of(template.read_bytes().decode()):
        if "$" not in line or is_comment(line):
            lines.append(line)
            continue
        names = set(string.Template(line).get_identifiers())
        if environment.slot.pool6 is None and names & _OF_POOL6:
            continue
        wanted |= {_credential(name) for name in names if name.startswith((CREDENTIAL, SECRET))}
        secrets = {name: _one_line(name, secret) for name in names if name.startswith(SECRET)}
        lines.append(_filled(line, names, {**values, **secrets}, template))
    return "\n".join(lines) + "\n", frozenset(wanted)


def secret_of(credentials: Mapping[str, Secret], template: Path) -> Callable[[str], str]:
    """Return what reads the credentials that stand in the configuration itself.

    It raises BadInput for one that the gateway was not given, or that cannot be read.
    """

    def read(name: str) -> str:
        require_given([name], credentials, template)
        try:
            return credentials[name]()
        except BadInput as error:
            raise BadInput(f"credential {name} cannot be read: {error}") from error

    return read


def secret_in(folder: Path) -> Callable[[str], str]:
    """Return what reads the same from the credentials that an instance has already."""

    def read(name: str) -> str:
        try:
            return (folder / name).read_text()
        except OSError as error:
            raise BadInput(f"credential {name} of the instance cannot be read: {error.strerror}") from error

    return read


def _one_line(name: str, secret: Callable[[str], str]) -> str:
    """Return what stands in the configuration; it can end neither its line nor its quotes."""
    value = secret(_credential(name)).removesuffix("\n").removesuffix("\r")
    if not value or not value.isprintable() or set(value) & set("\"'\\"):
        raise BadInput(
            f"credential {_credential(name)} stands in the configuration itself: write one line there, "
            "without quotation marks and backslashes"
        )
    return value


def _credential(name: str) -> str:
    return name.removeprefix(CREDENTIAL).removeprefix(SECRET)


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
        "own4": str(slot.pool4[1]),
        "users4": f"{slot.pool4[2]}-{slot.pool4[-2]}",
        "pool6": str(slot.pool6),
        "own6": str(slot.pool6[1]) if slot.pool6 is not None else "",
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
