"""Names inside and outside of a real tunnel: a real client, and a DNS server behind the gateway."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from policies.exposure import exposure, findings_of
from policies.model.release_tests import OF_NAMES, Finding, Method, Outcome, ReleaseTests
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.drivers.name_server import NameServer
from tests.sampled import sampled

pytestmark = ON_A_REAL_GATEWAY

BEHIND = 6
"""The site of the lab that is behind its gateway here."""
SERVER, SERVER6 = "10.99.0.53", "fd99::53"
NAME, ADDRESS = "intranet.example.com", "10.99.0.80"
PUBLIC = "www.example.org"
TESTS = ReleaseTests.model_validate(
    {"names": {"inside": {NAME: [ADDRESS], "git.example.com": []}, "outside": [PUBLIC]}}
)
GOOD = (f"dns = {SERVER}", f"dns = {SERVER6}", "split-dns = example.com")


@pytest.fixture
def server(lab: GatewayLab) -> Iterator[NameServer]:  # noqa: F811
    site = lab.lead_to(BEHIND, SERVER, SERVER6)
    names = {NAME: (ADDRESS,), "git.example.com": ("10.99.0.81", "fd99::81")}
    made = NameServer(site, (SERVER, SERVER6), names)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _a_good_release(built_lab: GatewayLab) -> Iterator[None]:  # noqa: F811
    template = built_lab.admission.template.read_text()
    yield
    built_lab.admission.template.write_text(template)


async def found(lab: GatewayLab, *pushed: str, tests: ReleaseTests = TESTS) -> tuple[Finding, ...]:  # noqa: F811
    """Test a release whose configuration pushes this, and return what was found."""
    with lab.admission.template.open("a") as template:
        template.writelines(f"{line}\n" for line in pushed)
    slot = await lab.running("1")
    return findings_of(tests, await lab.slots.inspect(operation("inspect"), slot, tests.names), Method.TRIED)


def of_names(findings: tuple[Finding, ...]) -> dict[str, Outcome]:
    """Return what was found of names, when all else is as it should be."""
    others = [one for one in findings if one.test not in OF_NAMES and one.outcome is not Outcome.PASSED]
    assert others == []
    return {one.test: one.outcome for one in findings if one.test in OF_NAMES}


def said_of_inside(findings: tuple[Finding, ...]) -> str:
    return next(one.said for one in findings if one.test == "names-inside")


async def test_a_name_is_answered_through_the_tunnel_by_the_servers_that_are_pushed(
    lab: GatewayLab,  # noqa: F811
    server: NameServer,
) -> None:
    findings = await found(lab, *GOOD)
    assert of_names(findings) == {"names-inside": Outcome.PASSED, "names-outside": Outcome.PASSED}
    assert exposure(findings).outcome is Outcome.PASSED
    askers = [ip_address(who) for who, _ in server.asked]
    pools = [pool for slot in lab.gateway.slots for pool in slot.pools]
    assert {who.version for who in askers if any(who in pool for pool in pools)} == {4, 6}
    assert {name for _, name in server.asked} == {NAME, "git.example.com"}


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("addresses", "said"),
    sampled(
        [
            (("203.0.113.9",), f"{SERVER} answers 203.0.113.9 for {NAME}, which is to be {ADDRESS}"),
            ((ADDRESS, "2001:db8::9"), f"{SERVER} answers 2001:db8::9 for {NAME}, which is to be {ADDRESS}"),
            ((), f"{SERVER} has no address of {NAME}"),
            (None, f"{SERVER} has no address of {NAME}"),
        ],
        None,
    ),
    ids=["another address", "one more", "no address", "no such name"],
)
async def test_a_release_that_leads_to_a_wrong_answer_fails(
    lab: GatewayLab,  # noqa: F811
    server: NameServer,
    addresses: tuple[str, ...] | None,
    said: str,
) -> None:
    if addresses is None:
        del server.names[NAME]
    else:
        server.names[NAME] = addresses
    findings = await found(lab, f"dns = {SERVER}", "split-dns = example.com")
    assert of_names(findings) == {"names-inside": Outcome.FAILED, "names-outside": Outcome.PASSED}
    assert exposure(findings).sentence == f"names-inside (1, at most 0): {said}"


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("pushed", "inside", "outside"),
    sampled(
        [
            ((), Outcome.FAILED, Outcome.PASSED),
            ((f"dns = {SERVER}", "split-dns = example.net"), Outcome.FAILED, Outcome.PASSED),
            ((f"dns = {SERVER}",), Outcome.PASSED, Outcome.FAILED),
            ((*GOOD, "tunnel-all-dns = true"), Outcome.PASSED, Outcome.FAILED),
            ((*GOOD, "split-dns = example.org"), Outcome.PASSED, Outcome.FAILED),
        ],
        (),
    ),
    ids=["no server", "another domain", "no domain", "all names", "too many domains"],
)
async def test_a_release_that_pushes_other_dns_settings_fails(
    lab: GatewayLab,  # noqa: F811
    server: NameServer,
    pushed: tuple[str, ...],
    inside: Outcome,
    outside: Outcome,
) -> None:
    del server
    assert of_names(await found(lab, *pushed)) == {"names-inside": inside, "names-outside": outside}


@pytest.mark.sweep
async def test_a_server_that_answers_this_host_and_nobody_in_the_tunnel_fails_the_release(
    lab: GatewayLab,  # noqa: F811
    server: NameServer,
) -> None:
    server.refused = ip_network("10.90.0.0/16")
    findings = await found(lab, f"dns = {SERVER}", "split-dns = example.com")
    assert of_names(findings)["names-inside"] is Outcome.FAILED
    assert said_of_inside(findings).startswith(
        f"{SERVER} answers this host for {NAME}, and nobody in the tunnel"
    )


@pytest.mark.sweep
async def test_a_server_that_answers_nobody_speaks_for_no_release_and_against_none(
    lab: GatewayLab,  # noqa: F811
    server: NameServer,
) -> None:
    server.silent = True
    findings = await found(lab, f"dns = {SERVER}", "split-dns = example.com")
    assert of_names(findings) == {"names-inside": Outcome.UNKNOWN, "names-outside": Outcome.PASSED}
    assert exposure(findings).outcome is Outcome.UNKNOWN
    assert f"{SERVER} answers for {NAME} neither in the tunnel nor to this host" in said_of_inside(findings)


@pytest.mark.sweep
async def test_one_server_that_answers_is_enough_where_another_one_is_away(
    lab: GatewayLab,  # noqa: F811
    server: NameServer,
) -> None:
    del server
    findings = await found(lab, f"dns = {SERVER}", "dns = 10.99.0.54", "split-dns = example.com")
    assert of_names(findings) == {"names-inside": Outcome.PASSED, "names-outside": Outcome.PASSED}
