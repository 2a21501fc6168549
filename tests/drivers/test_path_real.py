"""The way through a real gateway: nothing is found on a healthy one, and each fault by its name."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.runtime.host.path import GatewayPath
from policies.model.errors import Unavailable
from policies.model.instance import Steering
from policies.model.path import PathFacts
from policies.paths import findings_of
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.sampled import sampled

pytestmark = ON_A_REAL_GATEWAY

TARGET = "10.99.0.7"
FILTER = """
table inet fault {{
  chain {name} {{
    type filter hook {hook} priority 0; {rule}
  }}
}}
"""
DROPPED = FILTER.format(name="forward", hook="forward", rule="policy drop;")
SWALLOWED = FILTER.format(
    name="way", hook="postrouting", rule='oifname "br0" meta length > 1000 icmp type echo-request drop;'
)
"""Small packets pass, larger ones are swallowed without a word: what a black hole of the MTU does."""


def typed(lab: GatewayLab, command: str, given: str = "", site: str | None = None) -> None:  # noqa: F811
    inside = ["ip", "netns", "exec", site or lab.namespace]
    done = subprocess.run(
        [*inside, *command.split()], input=given, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def broken(lab: GatewayLab, fault: str, site: str) -> Iterator[None]:  # noqa: F811
    """Have one fault on the gateway, or on the next router, for the length of the body."""
    match fault:
        case "forwarding":
            there, back = ("sysctl -qw net.ipv4.ip_forward=0", ""), ("sysctl -qw net.ipv4.ip_forward=1", "")
        case "packet filter":
            there, back = ("nft -f -", DROPPED), ("nft delete table inet fault", "")
        case "packet size":
            there, back = ("nft -f -", SWALLOWED), ("nft delete table inet fault", "")
        case _:
            typed(lab, "ip route delete 10.90.0.0/16", site=site)
            try:
                yield
            finally:
                typed(lab, "ip route replace 10.90.0.0/16 via 10.77.0.1", site=site)
            return
    typed(lab, *there)
    try:
        yield
    finally:
        typed(lab, *back)


async def walked(lab: GatewayLab) -> PathFacts:  # noqa: F811
    lab.folders.daemon = Ocserv(replace(lab.login, target=TARGET))
    return await GatewayPath(lab.folders, lab.table).walk()


def wrong(facts: PathFacts) -> dict[str, str]:
    return {one.about: f"{one.sentence}; {one.mend}" for one in findings_of(facts) if not one.well}


async def serving(lab: GatewayLab) -> str:  # noqa: F811
    """A gateway that serves, and the site behind it that has the target; return its namespace."""
    slot = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), slot)
    return lab.lead_to(6, TARGET)


def ruleset() -> str:
    return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


async def test_a_table_that_cannot_be_listed_is_told_from_one_that_is_not_loaded(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def busy() -> Steering:
        raise Unavailable("nft cannot list the table of gw-1: busy")

    with monkeypatch.context() as patched:
        patched.setattr(lab.table, "read", busy)
        found = wrong(await walked(lab))["steering"]
    assert found.startswith("the steering table cannot be read: nft cannot list the table of gw-1: busy")
    assert "is not loaded" in wrong(await walked(lab))["steering"]


async def test_nothing_is_found_on_a_healthy_gateway(lab: GatewayLab) -> None:  # noqa: F811
    await serving(lab)
    before = await asyncio.to_thread(ruleset)
    assert wrong(await walked(lab)) == {}
    assert before == await asyncio.to_thread(ruleset), "whoever looks changes nothing"


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("fault", "about", "said"),
    sampled(
        [
            ("forwarding", "forwarding", "does not forward IPv4; sysctl -w net.ipv4.ip_forward=1"),
            ("packet filter", "packet filter", "chain forward of table fault drops all that is forwarded"),
            ("packet size", "packet size a", "larger packets are swallowed on the way; lower mtu"),
            ("NAT", "tunnel a", "no rule translates users' addresses (NAT); add a masquerade rule"),
        ],
        "NAT",
    ),
)
async def test_each_fault_is_found_by_its_name_and_gone_when_it_is_mended(
    fault: str,
    about: str,
    said: str,
    lab: GatewayLab,  # noqa: F811
) -> None:
    site = await serving(lab)
    with broken(lab, fault, site):
        found = wrong(await walked(lab))
    assert said in found[about], found
    assert wrong(await walked(lab)) == {}


@pytest.mark.sweep
async def test_a_name_server_that_answers_nobody_in_the_tunnel_is_named(lab: GatewayLab) -> None:  # noqa: F811
    template = lab.admission.template.read_text()
    try:
        lab.admission.template.write_text(f"{template}\ndns = {TARGET}\n")
        await serving(lab)
        found = wrong(await walked(lab))
    finally:
        lab.admission.template.write_text(template)
    assert f"{TARGET} answers nothing through the tunnel" in found["DNS a"]


async def test_a_gateway_without_instances_and_table_says_so_and_tries_nothing(lab: GatewayLab) -> None:  # noqa: F811
    facts = await walked(lab)
    assert facts.tried == ()
    assert {"instances", "steering"} <= set(wrong(facts))
