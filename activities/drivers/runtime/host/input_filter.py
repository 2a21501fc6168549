"""Whether the host's own packet filter would drop users who are sent to a slot's port.

Steering moves new users from the gateway's port to the port of a slot before the filter's input chains see
them, and a probe from the host itself passes through loopback. So the chains are read here, and followed for
the first packet of an unknown user. Rules of nftables are read as nft(8) lists them, those of iptables as
iptables-save(8) does, of either kernel interface. A condition that is not known may hold or not: a port
counts as dropped only if every way through the chains drops it, and if the gateway's own port is not dropped.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from activities.drivers.programs import run
from activities.drivers.runtime.host.packet_filter import ACCEPT, DEEPEST, DROP, OLDER_TABLES, RETURN
from activities.drivers.runtime.host.translated import OURS
from policies.lines import lines_in
from policies.model.fleet import Gateway

_FAMILIES = {4: frozenset({"ip", "inet"}), 6: frozenset({"ip6", "inet"})}
_PROTOCOLS = {"tcp": 6, "udp": 17}
_SERVICES = {"domain": 53, "ssh": 22, "http": 80, "https": 443, "openvpn": 1194}
"""Names of ports that tools may print."""


@dataclass(frozen=True)
class Packet:
    """The first packet of a user whom nobody knows, as an input chain sees it."""

    family: int
    protocol: str
    port: int
    redirected: bool
    """Whether steering has changed where it goes, which rules can ask for (`ct status dnat`)."""


@dataclass(frozen=True)
class Rule:
    """What a rule does with one packet: whether it fits, None where that is not known, and its verdict."""

    fits: bool | None
    verdict: str = ""
    """`accept`, `drop`, `return`, or empty for a rule that decides nothing or follows `chain`."""
    chain: str = ""
    """The chain that is followed."""
    comes_back: bool = True


@dataclass
class Filter:
    """One table: its chains by name, and those that see what comes in, with their policy."""

    name: str
    chains: dict[str, list[Rule]] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)

    def dropped_by(self) -> str | None:
        """Return the chain that drops the packet whatever is not known; None where it may pass."""
        for name, policy in self.inputs.items():
            fates = {policy if fate == RETURN else fate for fate in self._fates(name, 0)}
            if fates == {DROP}:
                return f"{self.name}, chain {name}"
        return None

    def _fates(self, chain: str, depth: int) -> set[str]:
        """Return what may become of the packet; `return` where it comes to the chain's end."""
        found = set[str]()
        if depth > DEEPEST:
            return {ACCEPT}
        for rule in self.chains.get(chain, ()):
            if rule.fits is False:
                continue
            fates = {rule.verdict} if rule.verdict else set[str]()
            if rule.chain:
                fates = self._fates(rule.chain, depth + 1)
                if rule.comes_back and RETURN in fates:
                    found |= fates - {RETURN}
                    continue
            found |= fates
            if rule.fits and fates:
                return found
        return found | {RETURN}


async def drops_users(gateway: Gateway, redirected: Iterable[str]) -> tuple[str, ...]:
    """Return which slots' ports the host's filter drops for users, each with the chain and what to do.

    Args:
        gateway: Whose slots.
        redirected: Transports of users whom steering redirects to a slot's port.
    """
    if gateway.steering == "haproxy" or gateway.has_own_networks:
        return ()  # users reach HAProxy there, or go through forward chains
    sources = await _sources()
    found = []
    for protocol in _PROTOCOLS:
        for family in sorted({address.version for address in gateway.addresses}):
            dialled = Packet(family, protocol, gateway.port, redirected=False)
            if _dropped(sources, dialled) is not None:
                continue  # users do not come this way at all
            for slot in gateway.slots:
                sent = replace(dialled, port=slot.port, redirected=protocol in redirected)
                if (where := _dropped(sources, sent)) is not None:
                    found.append(_sentence(gateway, slot.name, sent, where))
    return tuple(found)


def _sentence(gateway: Gateway, slot: str, packet: Packet, where: str) -> str:
    dialled, what = (f"{packet.protocol.upper()} port {port}" for port in (gateway.port, packet.port))
    return (
        f"the packet filter of {gateway.name} accepts {dialled} and drops {what} of slot {slot} over "
        f"IPv{packet.family} ({where}); accept {what} from your users"
    )


@dataclass(frozen=True)
class Sources:
    """What the host's tools list."""

    listed: Sequence[Mapping[str, Any]] = ()
    saved: Mapping[int, Sequence[tuple[str, str]]] = field(default_factory=dict)
    """By family, the name of a kernel interface and what its iptables-save prints."""


def _dropped(sources: Sources, packet: Packet) -> str | None:
    filters = [*_of_nft(sources.listed, packet)]
    for name, text in sources.saved.get(packet.family, ()):
        filters += _of_iptables(name, text, packet)
    return next((where for one in filters if (where := one.dropped_by()) is not None), None)


async def _sources() -> Sources:
    """Return what is there; what a tool does not list is not known, and drops nobody."""
    listed: list[Mapping[str, Any]] = []
    said = await run(["nft", "-j", "list", "ruleset"])
    with suppress(ValueError, KeyError):
        listed = json.loads(said.out)["nftables"] if said.status == 0 else []
    saved: dict[int, list[tuple[str, str]]] = {4: [], 6: []}
    for family, prefix in ((4, "iptables"), (6, "ip6tables")):
        for kind in ("nft", "legacy"):
            program = f"{prefix}-{kind}-save"
            if not shutil.which(program) or (kind == "legacy" and not _has(OLDER_TABLES[family])):
                continue
            said = await run([program, "-t", "filter"])
            if said.status == 0:
                saved[family].append((f"{prefix}-{kind}", said.out))
    return Sources(listed, saved)


def _has(names: Path) -> bool:
    with suppress(OSError):
        return "filter" in names.read_text().split()
    return False


# --- nftables ----------------------------------------------------------------------------


def _of_nft(listed: Sequence[Mapping[str, Any]], packet: Packet) -> Iterator[Filter]:
    """Yield the tables that see the packet, without ours."""
    tables: dict[tuple[str, str], Filter] = {}
    sets: dict[tuple[str, str, str], list[Any]] = {}
    for kind in ("set", "map"):
        for one in (entry[kind] for entry in listed if kind in entry):
            sets[one["family"], one["table"], one["name"]] = one.get("elem", [])
    for one in (entry["chain"] for entry in listed if "chain" in entry):
        if one["family"] in _FAMILIES[packet.family] and one["table"] != OURS:
            table = tables.setdefault(
                (one["family"], one["table"]), Filter(f"nftables table {one['family']} {one['table']}")
            )
            table.chains[one["name"]] = []
            if one.get("hook") == "input" and one.get("type") == "filter":
                table.inputs[one["name"]] = one.get("policy", ACCEPT)
    for one in (entry["rule"] for entry in listed if "rule" in entry):
        key = one["family"], one["table"]
        if key in tables:
            named = {name: elements for (*of, name), elements in sets.items() if tuple(of) == key}
            tables[key].chains[one["chain"]] += _nft_rules(one["expr"], named, packet)
    yield from tables.values()


def _nft_rules(
    parts: Sequence[Mapping[str, Any]], named: Mapping[str, list[Any]], packet: Packet
) -> list[Rule]:
    fits: bool | None = True
    rules: list[Rule] = []
    for part in parts:
        (kind, value), *_ = part.items()
        if kind == "match":
            fits = _both(fits, _matches(value, named, packet))
        elif kind == "vmap":
            rules += [
                replace(rule, fits=_both(fits, rule.fits)) for rule in _verdict_map(value, named, packet)
            ]
        elif kind in {"limit", "xt", "quota", "meter", "fib", "ct count"}:
            fits = _both(fits, None)
        else:
            rules += [Rule(fits, *verdict) for verdict in _verdicts({kind: value})]
    return rules


def _verdicts(verdict: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Yield the verdict with the chain that is followed, and whether that one comes back."""
    (kind, value), *_ = verdict.items()
    if kind in {"accept", "queue"}:
        yield ACCEPT, "", True
    elif kind in {"drop", "reject"}:
        yield DROP, "", True
    elif kind == "return":
        yield RETURN, "", True
    elif kind in {"jump", "goto"}:
        yield "", value["target"], kind == "jump"


def _verdict_map(value: Mapping[str, Any], named: Mapping[str, list[Any]], packet: Packet) -> Iterator[Rule]:
    data = value["data"]
    pairs = named.get(data[1:], []) if isinstance(data, str) else data.get("set", [])
    for key, verdict in pairs:
        fits = _one_of(_value_of(value["key"], packet), key, named)
        yield from (Rule(fits, *found) for found in _verdicts(verdict))


def _matches(match: Mapping[str, Any], named: Mapping[str, list[Any]], packet: Packet) -> bool | None:
    ours = _value_of(match["left"], packet)
    found = _one_of(ours, match["right"], named)
    if match["op"] == "!=":
        return None if found is None else not found
    return found if match["op"] in {"==", "in"} else None


UNKNOWN = object()
"""What a packet has there is not known: it differs between users."""
_NOT_LOOPBACK = object()
"""The device that a user's packet comes in by: not `lo`, and else not known."""


def _value_of(left: Any, packet: Packet) -> Any:
    """Return what the packet shows where a rule looks; None where it has no such thing."""
    kind, asked = next(iter(left.items())) if isinstance(left, dict) and left else ("", {})
    if not isinstance(asked, dict):
        return UNKNOWN
    if kind == "payload":
        return _header_of(asked.get("protocol"), asked.get("field"), packet)
    facts = {
        ("meta", "l4proto"): packet.protocol,
        ("meta", "nfproto"): f"ipv{packet.family}",
        ("meta", "protocol"): {4: "ip", 6: "ip6"}[packet.family],
        ("meta", "iif"): _NOT_LOOPBACK,
        ("meta", "iifname"): _NOT_LOOPBACK,
        ("ct", "state"): "new",
        ("ct", "status"): "dnat" if packet.redirected else None,
        ("ct", "direction"): "original",
    }
    return facts.get((str(kind), str(asked.get("key"))), UNKNOWN)


def _header_of(protocol: Any, name: Any, packet: Packet) -> Any:
    if protocol in {"th", packet.protocol}:
        return packet.port if name == "dport" else UNKNOWN
    if name in {"protocol", "nexthdr"}:
        return packet.protocol
    return UNKNOWN if protocol in {"ip", "ip6", "ether"} else None


def _one_of(ours: Any, right: Any, named: Mapping[str, list[Any]]) -> bool | None:
    """Return whether the value is that, or one of those."""
    if isinstance(right, str) and right.startswith("@"):
        right = named.get(right[1:], [])
    if isinstance(right, dict):
        right = right.get("set", right.get("elem", right))
    if isinstance(right, dict) and "val" in right:
        right = right["val"]
    if isinstance(right, list):
        each = [_one_of(ours, one, named) for one in right]
        return True if True in each else None if None in each else False
    return _is(ours, right)


def _is(ours: Any, right: Any) -> bool | None:
    if right == "*":
        return True
    if ours is None:
        return False
    if ours is _NOT_LOOPBACK:
        return False if right == "lo" else None
    if isinstance(ours, int):
        low, high = right["range"] if isinstance(right, dict) and "range" in right else (right, right)
        return _port(low) <= ours <= _port(high)
    return None if ours is UNKNOWN or isinstance(right, (bool, dict)) else _protocol(right) == ours


def _port(value: Any) -> int:
    return value if isinstance(value, int) else _SERVICES.get(str(value), -1)


def _protocol(value: Any) -> Any:
    return next((name for name, number in _PROTOCOLS.items() if value == number), value)


def _both(one: bool | None, other: bool | None) -> bool | None:
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


# --- iptables ----------------------------------------------------------------------------


def _of_iptables(name: str, text: str, packet: Packet) -> list[Filter]:
    """Return the table `filter` as iptables-save(8) prints it."""
    made = Filter(name)
    for line in lines_in(text):
        if line.startswith(":"):
            chain, policy, *_ = line[1:].split()
            made.chains[chain] = []
            if chain == "INPUT":
                made.inputs[chain] = DROP if policy == "DROP" else ACCEPT
        elif line.startswith("-A "):
            _, chain, *words = shlex.split(line)
            made.chains.setdefault(chain, []).append(_saved_rule(words, packet))
    return [made]


_TARGETS = {
    "ACCEPT": ACCEPT,
    "DROP": DROP,
    "REJECT": DROP,
    "RETURN": RETURN,
    "QUEUE": ACCEPT,
    "NFQUEUE": ACCEPT,
}
_DECIDE_NOTHING = frozenset(
    {"LOG", "NFLOG", "MARK", "CONNMARK", "CT", "TCPMSS", "SET", "AUDIT", "CLASSIFY", "DSCP", "TTL", "HL"}
)


def _saved_rule(words: Sequence[str], packet: Packet) -> Rule:
    fits: bool | None = True
    verdict, chain, comes_back = "", "", True
    at = 0
    while at < len(words):
        negated = words[at] == "!"
        at += negated
        option = words[at]
        end = at + 1
        while (
            end < len(words) and not words[end].startswith("--") and not re.fullmatch(r"!|-[a-z]", words[end])
        ):
            end += 1
        values, at = words[at + 1 : end], end
        value = values[0] if values else ""
        if option in {"-j", "-g"}:
            verdict = _TARGETS.get(value, "")
            chain = "" if verdict or value in _DECIDE_NOTHING else value
            comes_back = option == "-j"
            break  # what follows are options of the target
        found = _saved_match(option, value, packet)
        fits = _both(fits, found if not negated or found is None else not found)
    return Rule(fits, verdict, chain, comes_back)


_PORTS = frozenset({"--dport", "--dports", "--ports", "--destination-port", "--destination-ports"})
_NO_CONDITION = frozenset({"-m", "--comment"})


def _saved_match(option: str, value: str, packet: Packet) -> bool | None:
    """Return whether the packet fits what an option asks; None where that is not known."""
    values, states = set(value.split(",")), {"NEW", "DNAT"} if packet.redirected else {"NEW"}
    known: dict[str, bool | None] = {
        "-p": value in {packet.protocol, str(_PROTOCOLS[packet.protocol]), "all", "0"},
        "-i": False if value == "lo" else None,
        "--ctstate": bool(states & values),
        "--state": "NEW" in values,
        "--dst-type": "LOCAL" in values,
        "--icmp-type": False,
        "--icmpv6-type": False,
    }
    if option in _PORTS:
        return any(_in_saved_range(one, packet.port) for one in values)
    return True if option in _NO_CONDITION else known.get(option)


def _in_saved_range(written: str, port: int) -> bool:
    low, _, high = written.partition(":")
    with suppress(ValueError):
        return int(low or 0) <= port <= int(high or (low if ":" not in written else 65535))
    return False
