"""The routes of this host, as `ip` tells them of every table."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from activities.drivers.programs import run
from policies.model.errors import Unavailable
from policies.pools import Route

_LEADS_SOMEWHERE = ("unicast", "local")
"""Kinds of route that carry packets; the others (blackhole, broadcast) give nobody an address."""

PROXY_ARP = "/proc/sys/net/ipv4/conf/{}/proxy_arp"


async def routes() -> tuple[Route, ...]:
    """Return every route of this network namespace but the default ones; Unavailable if `ip` does not say."""
    found: list[Route] = []
    for family in ("-4", "-6"):
        said = await run(["ip", "-j", family, "route", "show", "table", "all"])
        if said.status:
            raise Unavailable(f"ip cannot list the routes of this host: {said.last_words}")
        found += _read(json.loads(said.out or "[]"))
    # A tunnel that ends while ip lists routes takes its route with it; ip then calls its interface by number.
    there = {"", *(name for _, name in socket.if_nameindex())}
    return tuple(route for route in found if route.device in there)


def _read(listed: list[dict[str, Any]]) -> Iterator[Route]:
    for entry in listed:
        device = entry.get("dev", "")
        if entry["dst"] == "default" or entry.get("type", "unicast") not in _LEADS_SOMEWHERE:
            continue
        connected = entry.get("protocol") == "kernel" and entry.get("type", "unicast") == "unicast"
        yield Route(
            network=ip_network(entry["dst"]), device=device, connected=connected, answers=_answers(device)
        )


def _answers(device: str) -> bool:
    with suppress(OSError):
        return Path(PROXY_ARP.format(device)).read_text().strip() == "1"
    return False
