"""Where the host's packet filter sends users' connections before any socket of this host has them.

Container runtimes publish ports so. Rules of nftables are read as nft(8) tells them. Rules of iptables that
it cannot tell, and those of the older kernel interface, are read as iptables-save(8) tells them.
"""

import asyncio
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from activities.drivers.daemon.port import Dialled
from activities.drivers.programs import run
from policies.lines import lines_in
from policies.model.errors import Unavailable
from policies.model.fleet import Gateway

OURS = "penstock"
OLDER_TABLES = Path("/proc/thread-self/net")
_SAVED = re.compile(r"-A (?P<chain>\S+) .*-j DNAT --to-destination (?P<to>\S+)")
_SAVED_PORTS = re.compile(r"(?P<not>! )?--(?:dport|dports) (?P<ports>\S+)")
_SAVED_PROTOCOL = re.compile(r"(?P<not>! )?-p (?P<protocol>\S+)")
_SAVED_ADDRESS = re.compile(r"(?P<not>! )?-d (?P<address>\S+)")
_PROTOCOLS = ("l4proto", "protocol", "nexthdr")
"""Fields that name the transport, of any packet, of IPv4 and of IPv6."""
_NUMBERS = {"tcp": "6", "udp": "17"}


@dataclass(frozen=True)
class _Asked:
    """A gateway's users at one of the ports that they dial, as a rule meets them."""

    gateway: Gateway
    dialled: Dialled

    def at_port(self, first: int, last: int) -> bool:
        return first <= self.dialled.port <= last

    def by(self, protocol: Any) -> bool:
        """Return whether the protocol, by its name or number, is the users'."""
        return str(protocol) in (self.dialled.transport, _NUMBERS[self.dialled.transport])

    def at_address(self, network: str) -> bool:
        with suppress(ValueError):
            return any(one in ip_network(network, strict=False) for one in self.gateway.addresses)
        return True  # a name, or a form that is not known: it may be them


async def sent_elsewhere(gateway: Gateway, dialled: Sequence[Dialled]) -> str | None:
    """Return which port that users dial is sent where, and by which rule; None when none is.

    Raises:
        Unavailable: nft does not say.
    """
    said = await run(["nft", "-j", "list", "ruleset"])
    if said.status:
        raise Unavailable(f"nft cannot list the rules of {gateway.name}: {said.last_words}")
    found, unread = await asyncio.to_thread(_by_nft, said.out, gateway, dialled)  # hosts have 10,000 rules
    return found or await _by_iptables(unread, gateway, dialled)


def _by_nft(text: str, gateway: Gateway, dialled: Sequence[Dialled]) -> tuple[str | None, set[str]]:
    """Return where a rule sends users' ports, and the families with rules that nft does not tell whole."""
    listed = json.loads(text or '{"nftables": []}')["nftables"]
    rules, tables = [*_rules(listed)], _elements(listed)
    for asked in [_Asked(gateway, one) for one in dialled]:
        for rule in rules:
            if where := _of_rule(rule, tables.get(_table(rule), _Elements()), asked):
                by = f"chain {rule['chain']} of table {rule['family']} {rule['table']}"
                return f"{_port(asked)} is sent to {where} by {by}", set()
    return None, {rule["family"] for rule in rules if any("xt" in part for part in rule["expr"])}


def _port(asked: _Asked) -> str:
    by = "UDP " if asked.dialled.transport == "udp" else ""
    return f"{by}port {asked.dialled.port} of {asked.gateway.name}"


@dataclass(frozen=True)
class _Elements:
    """The named sets and maps of a table."""

    named: dict[str, Sequence[Any]] = field(default_factory=dict)

    def of(self, right: Any) -> Sequence[Any]:
        """Return each thing that the right side of a match or a map names."""
        if isinstance(right, str) and right.startswith("@"):
            return self.named.get(right, ())
        if isinstance(right, dict) and "set" in right:
            return list(right["set"])
        return [right]


def _table(one: Mapping[str, Any]) -> tuple[str, str]:
    return one["family"], one["table"]


def _elements(listed: Iterable[Mapping[str, Any]]) -> Mapping[tuple[str, str], _Elements]:
    """Return the named sets and maps of each table."""
    found = defaultdict[tuple[str, str], _Elements](_Elements)
    for one in (entry.get("set") or entry.get("map") for entry in listed):
        if one:
            found[_table(one)].named[f"@{one['name']}"] = one.get("elem", [])
    return found


def _rules(listed: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from (one["rule"] for one in listed if "rule" in one and one["rule"]["table"] != OURS)


def _of_rule(rule: Mapping[str, Any], elements: _Elements, asked: _Asked) -> str | None:
    """Return where the rule sends packets to the port that users dial; it has to name the port."""
    names_port = False
    for part in (one for one in rule["expr"] if isinstance(one, dict)):  # text is what nft has no JSON for
        if "match" in part:
            field = _field(part["match"]["left"])
            meets = _meets(field, part["match"], elements, asked)
            if meets is False:
                return None
            names_port = names_port or (meets is True and field.get("field") == "dport")
        elif "dnat" in part:
            to = part["dnat"].get("addr")
            if isinstance(to, dict) and "map" in to:
                return _of_map(to["map"], elements, asked)
            return _spoken(to, part["dnat"].get("port")) if names_port else None
        elif isinstance(part.get("xt"), dict) and part["xt"].get("name") == "DNAT":
            return "a container" if names_port else None
    return None


def _field(left: Any) -> dict[str, Any]:
    """Return which field of a packet is looked at, nothing where it is none."""
    if not isinstance(left, dict):
        return {}
    if left.get("meta") == {"key": "l4proto"}:
        return {"field": "l4proto"}
    found: dict[str, Any] = left.get("payload", {})
    return found


def _meets(
    field: Mapping[str, Any], match: Mapping[str, Any], elements: _Elements, asked: _Asked
) -> bool | None:
    """Say whether the match lets packets to that port through; None when it asks for others."""
    tests: dict[str, Callable[[Any], bool]] = {
        "dport": lambda one: asked.at_port(*_ports(one)),
        "daddr": lambda one: asked.at_address(_network(one)),
        **dict.fromkeys(_PROTOCOLS, asked.by),
    }
    if field.get("field") not in tests or match["op"] not in ("==", "!=", "in"):
        return None
    if field["field"] == "dport" and field["protocol"] not in (asked.dialled.transport, "th"):
        return False
    listed = [_key(one) for one in elements.of(match["right"])]
    through: bool = any(map(tests[field["field"]], listed)) != (match["op"] == "!=")
    return through


def _of_map(said: Mapping[str, Any], elements: _Elements, asked: _Asked) -> str | None:
    """Return where a map from ports to addresses leads packets to the port that users dial."""
    field = _field(said["key"])
    if field.get("field") != "dport" or field["protocol"] not in (asked.dialled.transport, "th"):
        return None
    pairs = [one for one in elements.of(said["data"]) if isinstance(one, list)]
    to = next((to for ports, to in pairs if asked.at_port(*_ports(_key(ports)))), None)
    return None if to is None else _spoken(to, None)


def _key(element: Any) -> Any:
    """Return the element without its timeout and counters."""
    return element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element


def _ports(said: Any) -> tuple[int, int]:
    if isinstance(said, dict) and "range" in said:
        said = said["range"]
        return int(said[0]), int(said[1])
    return (said, said) if isinstance(said, int) else (-1, -1)


def _network(said: Any) -> str:
    if isinstance(said, dict) and "prefix" in said:
        return f"{said['prefix']['addr']}/{said['prefix']['len']}"
    return str(said)


def _spoken(to: Any, port: Any) -> str:
    if isinstance(to, dict) and "concat" in to:
        to, port = to["concat"]
    if not isinstance(to, str):
        return "other addresses"
    with suppress(ValueError):
        to = f"[{to}]" if port and ip_address(to).version == 6 else to  # noqa: PLR2004
    return f"{to}:{port}" if port else to


# --- iptables ------------------------------------------------------------------------


async def _by_iptables(unread: set[str], gateway: Gateway, dialled: Sequence[Dialled]) -> str | None:
    """Return which port a rule of iptables sends where that nft does not tell whole.

    The older interface is asked only where it has the table: asking would make it.
    """
    for family, command in (("ip", "iptables"), ("ip6", "ip6tables")):
        programs = [f"{command}-nft-save"] if family in unread else []
        with suppress(OSError):
            if "nat" in (OLDER_TABLES / f"{family}_tables_names").read_text().split():
                programs.append(f"{command}-legacy-save")
        for program in filter(shutil.which, programs):
            saved = (await run([program, "-t", "nat"])).out
            if where := await asyncio.to_thread(read_saved, saved, gateway, dialled):
                return f"{where} of {command}"
    return None


def read_saved(saved: str, gateway: Gateway, dialled: Sequence[Dialled]) -> str | None:
    """Return which port that users dial is sent where by a table, as iptables-save(8) writes it."""
    for asked in [_Asked(gateway, one) for one in dialled]:
        for line in lines_in(saved):
            rule = _SAVED.match(line)
            if rule is not None and _is_met(line, asked):
                return f"{_port(asked)} is sent to {rule['to']} by chain {rule['chain']} of table nat"
    return None


def _is_met(line: str, asked: _Asked) -> bool:
    """Return whether the rule of that line takes packets to the port; it has to name it."""
    ports, address, protocol = (one.search(line) for one in (_SAVED_PORTS, _SAVED_ADDRESS, _SAVED_PROTOCOL))
    if ports is None or (protocol is not None and asked.by(protocol["protocol"]) == bool(protocol["not"])):
        return False
    ranges = [[int(end) for end in one.split(":")] for one in ports["ports"].split(",")]
    if any(asked.at_port(one[0], one[-1]) for one in ranges) == bool(ports["not"]):
        return False
    return address is None or asked.at_address(address["address"]) != bool(address["not"])
