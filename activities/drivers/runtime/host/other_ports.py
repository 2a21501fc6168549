"""Other ports and addresses that the host's packet filter leads to the port that users dial.

Many hosts do so for networks that let only port 53 or 443 out: `udp dport 53 redirect to :1194`. The steering
leads users who dial the gateway's own port. The others would stay at the daemon that serves now, come back to
it after each drain, and reach nothing once it has stopped.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from activities.drivers.daemon.port import Dialled
from activities.drivers.programs import run
from activities.drivers.runtime.host.filter_listing import advice_on, read_rules, text_of
from activities.drivers.runtime.host.iptables_rules import SavedRule
from activities.drivers.runtime.host.nftables_rules import NftRule
from activities.drivers.runtime.host.packet_filter import Rule, Rules
from activities.drivers.runtime.host.rule_values import networks_of
from policies.model.fleet import Gateway

Ports = tuple[int, int]
_EVERY_PORT: Ports = (0, 65535)
_NUMBERS = {"6": "tcp", "17": "udp"}


@dataclass
class _Led:
    """What a rule asks of packets, and where it leads them."""

    transports: set[str] = field(default_factory=lambda: {"tcp", "udp"})
    ports: list[Ports] = field(default_factory=lambda: [_EVERY_PORT])
    to: list[IPv4Network | IPv6Network] | None = None
    """The addresses that the packets have, None for any."""
    leads: bool = False
    known: bool = True
    at: str | None = None
    """The address that they get, None for the host's own."""
    to_ports: list[Ports] | None = None
    """The ports that they get, None where they keep theirs."""


async def other_ways(
    gateway: Gateway, dialled: Sequence[Dialled], rules: Rules | None = None
) -> tuple[str, ...]:
    """Return what leads other ports and addresses to the port that users dial, each with its rule.

    `rules` is the packet filter where it was read already.

    Raises:
        Unavailable: The packet filter cannot be read.
    """
    own = {str(address) for address in gateway.addresses} | await _addresses()
    found = dict[str, None]()
    for table in (rules or await read_rules()).tables:
        outward = {name for name, (hook, *_) in table.bases.items() if hook == "output"}
        for rule in (one for name, rules in table.chains.items() if name not in outward for one in rules):
            led = _led_by(rule, table.sets)
            if led.leads and (led.at is None or led.at in own):
                for one in dialled:
                    if _is_other(led, gateway, one):
                        found[await _sentence(gateway, one, rule, known=led.known)] = None
    return tuple(found)


def _led_by(rule: Rule, sets: Mapping[str, Sequence[Any]]) -> _Led:
    if isinstance(rule, NftRule):
        return _of_expression(rule, sets)
    return _of_words(rule) if isinstance(rule, SavedRule) else _Led()


def _is_other(led: _Led, gateway: Gateway, dialled: Dialled) -> bool:
    """Whether packets come to the port by this rule that steering does not lead."""
    if dialled.transport not in led.transports:
        return False
    if not led.known:
        return True
    elsewhere = led.to is not None and any(
        not any(ip_network(address) == network for address in gateway.addresses) for network in led.to
    )
    if led.to_ports is None:
        return elsewhere and _has(led.ports, dialled.port)
    others = any((first, last) != (dialled.port, dialled.port) for first, last in led.ports)
    return _has(led.to_ports, dialled.port) and (others or elsewhere)


def _has(ports: Iterable[Ports], port: int) -> bool:
    return any(first <= port <= last for first, last in ports)


async def _sentence(gateway: Gateway, dialled: Dialled, rule: Rule, *, known: bool) -> str:
    port = f"{dialled.transport.upper()} port {dialled.port} of {gateway.name}"
    where = f"`{await text_of(rule)}` ({rule.place})"
    if not known:
        advice = await advice_on(rule.text, rule.namespace)
        return f"it is not known whether {where} leads other ports to {port}; {advice}"
    return (
        f"{where} leads users of another port or address to {port}; no new instance gets them, and they lose "
        f"the gateway once this daemon stops. Have them dial {port}, then remove the rule"
    )


async def _addresses() -> set[str]:
    said = await run(["ip", "-j", "address", "show"])
    links: list[dict[str, Any]] = json.loads(said.out or "[]") if said.status == 0 else []
    return {one["local"] for link in links for one in link.get("addr_info", ()) if "local" in one}


# --- nftables -----------------------------------------------------------------------------


def _of_expression(rule: NftRule, sets: Mapping[str, Sequence[Any]]) -> _Led:
    led = _Led()
    for part in rule.expr:
        (kind, value), *_ = part.items()
        if kind == "match":
            _ask(led, value, sets)
        elif kind == "redirect" or (kind == "dnat" and isinstance(value, dict)):
            led.leads = True
            _lead(led, value or {}, sets)
        elif kind == "xt" and value.get("name") in {"REDIRECT", "DNAT"}:
            led.leads, led.known = True, False
    return led


def _ask(led: _Led, match: Mapping[str, Any], sets: Mapping[str, Sequence[Any]]) -> None:
    """Take in what a match asks; what is not understood lets every packet through."""
    left, values = match["left"], _elements(match["right"], sets)
    payload = left.get("payload", {}) if isinstance(left, dict) else {}
    if match["op"] == "!=":
        values = []
    if payload.get("protocol") in {"tcp", "udp"}:
        led.transports &= {payload["protocol"]}
    if payload.get("field") == "dport" and values:
        led.ports = [port for value in values for port in _ports(value)]
    elif payload.get("field") == "daddr" and values:
        with suppress(ValueError, TypeError, KeyError):
            led.to = [network for value in values for network in networks_of(value)]
    elif values and (left == {"meta": {"key": "l4proto"}} or payload.get("field") in {"protocol", "nexthdr"}):
        led.transports &= {_NUMBERS.get(str(value), str(value)) for value in values}


def _lead(led: _Led, value: Mapping[str, Any], sets: Mapping[str, Sequence[Any]]) -> None:
    """Take in where the packets are led; a map leads each of its keys."""
    address, port = value.get("addr"), value.get("port")
    chosen = next((one["map"] for one in (address, port) if isinstance(one, dict) and "map" in one), None)
    targets = [(address, port)]
    if chosen is not None:
        data = chosen["data"]
        pairs = sets.get(data, []) if isinstance(data, str) else data.get("set", [])
        payload = chosen["key"].get("payload", {}) if isinstance(chosen["key"], dict) else {}
        if payload.get("protocol") in {"tcp", "udp"}:
            led.transports &= {payload["protocol"]}
        if payload.get("field") == "dport":
            led.ports = [one for key, _ in pairs for one in _ports(key)]
        targets = [(to, None) if address is not None else (None, to) for _, to in pairs]
    led.to_ports = []
    for at, to in targets:
        both = at["concat"] if isinstance(at, dict) and "concat" in at else [at, to]
        led.at = both[0] if isinstance(both[0], str) else led.at
        led.to_ports += _ports(both[1]) if both[1] is not None else []
    if not led.to_ports and all(to is None for _, to in targets):
        led.to_ports = None


def _elements(right: Any, sets: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    if isinstance(right, str) and right.startswith("@"):
        return sets.get(right, [])
    return list(right["set"]) if isinstance(right, dict) and "set" in right else [right]


def _ports(said: Any) -> list[Ports]:
    """Return the ports that are named; every one where that is not understood."""
    said = said["elem"]["val"] if isinstance(said, dict) and "elem" in said else said
    if isinstance(said, int):
        return [(said, said)]
    if isinstance(said, dict) and "range" in said:
        with suppress(ValueError, TypeError):
            return [(int(said["range"][0]), int(said["range"][1]))]
    return [_EVERY_PORT]


# --- iptables -----------------------------------------------------------------------------

_PORTS = frozenset({"--dport", "--dports", "--destination-port", "--destination-ports"})


def _of_words(rule: SavedRule) -> _Led:
    led = _Led()
    for negated, option, values, _ in rule.options:
        value = values[0] if values else ""
        if option in {"-j", "-g"}:
            led.leads = value in {"REDIRECT", "DNAT"}
            _saved_target(led, values)
        elif negated:
            continue
        elif option == "-p":
            led.transports &= {_NUMBERS.get(value, value)} if value not in {"all", "0"} else led.transports
        elif option in _PORTS:
            led.ports = [_saved_ports(one, ":") for one in value.split(",")]
        elif option == "-d":
            led.to = [ip_network(value, strict=False)]
    return led


def _saved_target(led: _Led, words: Sequence[str]) -> None:
    named = dict(zip(words[1::2], words[2::2], strict=False))
    if to := named.get("--to-ports"):
        led.to_ports = [_saved_ports(to, "-")]
    elif to := named.get("--to-destination"):
        led.at, led.to_ports = _saved_destination(to)


def _saved_destination(to: str) -> tuple[str, list[Ports] | None]:
    """Return address and ports of `192.0.2.1:443`, `[2001:db8::1]:443`, or of an address alone."""
    with suppress(ValueError):
        return str(ip_address(to.strip("[]"))), None
    address, _, port = to.rpartition(":")
    return address.strip("[]"), [_saved_ports(port.partition("/")[0], "-")]


def _saved_ports(written: str, between: str) -> Ports:
    first, _, last = written.partition(between)
    with suppress(ValueError):
        return int(first), int(last or first)
    return _EVERY_PORT
