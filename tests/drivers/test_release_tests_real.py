"""Release tests of a real ocserv: what spoils a release is found by its test, and by no other."""

import shutil
from collections.abc import Iterator
from datetime import timedelta

import pytest

from deploy.lab.spoiled import LIBRARY, PRELOAD, Spoiled, spoil
from policies.exposure import exposure, findings_of
from policies.model.release_tests import Asked, LoadTest, Method, Outcome, ReleaseTests
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation

pytestmark = [*ON_A_REAL_GATEWAY, pytest.mark.skipif(not shutil.which("cc"), reason="needs cc")]


@pytest.fixture(autouse=True)
def _a_good_release(built_lab: GatewayLab) -> Iterator[None]:  # noqa: F811
    template = built_lab.admission.template.read_text()
    yield
    built_lab.admission.template.write_text(template)
    for path in (LIBRARY, PRELOAD):
        (built_lab.admission.tree / path).unlink(missing_ok=True)


async def failed(lab: GatewayLab) -> dict[str, str]:  # noqa: F811
    """Run the release, test it, and return the tests that it does not pass."""
    slot = await lab.running("1")
    measured = await lab.slots.inspect(operation("inspect"), slot)
    findings = findings_of(ReleaseTests(), measured, Method.TRIED)
    if all(one.outcome is Outcome.PASSED for one in findings):
        assert exposure(findings).outcome is Outcome.PASSED
    assert not [one for one in findings if one.outcome is Outcome.UNKNOWN], findings
    return {one.test: one.said for one in findings if one.outcome is Outcome.FAILED}


async def test_a_good_release_passes_every_test_and_nothing_is_left(lab: GatewayLab) -> None:  # noqa: F811
    assert await failed(lab) == {}


@pytest.mark.sweep
async def test_a_release_that_lets_a_wrong_password_in_is_found(lab: GatewayLab) -> None:  # noqa: F811
    spoil(lab.admission.tree, Spoiled.LETS_ANYBODY_IN)
    assert list(await failed(lab)) == ["wrong-password"]


async def test_a_release_that_forwards_in_the_clear_is_found(lab: GatewayLab) -> None:  # noqa: F811
    spoil(lab.admission.tree, Spoiled.FORWARDS_IN_THE_CLEAR)
    assert list(await failed(lab)) == ["cleartext"]


async def test_a_release_that_takes_a_client_without_encryption_is_found(lab: GatewayLab) -> None:  # noqa: F811
    with lab.admission.template.open("a") as template:
        template.write('\ntls-priorities = "NORMAL:+NULL:+SHA1:-VERS-TLS1.3"\n')
    assert list(await failed(lab)) == ["null-cipher"]


async def loaded(lab: GatewayLab, how: Spoiled | None) -> list[str]:  # noqa: F811
    """Let a good release serve, load a new one beside it, and return the tests that it fails."""
    old = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), old)
    if how is not None:
        spoil(lab.admission.tree, how)
    new = await lab.running("2")
    test = LoadTest(gateway=lab.gateway.name, sessions=3, within=timedelta(seconds=1))
    # What else this machine does may make either slower: only what is spoiled is that much slower.
    tests = ReleaseTests(load=test.model_copy(update={"throughput": 0.4, "handshakes": 0.2, "cpu": 3.0}))
    measured = await lab.slots.load(operation("load"), new, test.load)
    findings = [one for one in findings_of(tests, measured, Method.LOADED) if one.test != Asked.RESUMED]
    assert not [one for one in findings if one.outcome is Outcome.UNKNOWN], findings
    assert await lab.sessions.count(new) == 0
    return [one.test for one in findings if one.outcome is Outcome.FAILED]


@pytest.mark.sweep
async def test_a_release_as_fast_as_the_old_one_passes_its_load(lab: GatewayLab) -> None:  # noqa: F811
    assert await loaded(lab, None) == []


@pytest.mark.sweep
async def test_a_release_that_is_slower_is_found_under_load(lab: GatewayLab) -> None:  # noqa: F811
    assert await loaded(lab, Spoiled.IS_SLOWER) == ["throughput", "cpu"]


async def test_without_an_old_instance_a_load_proves_nothing(lab: GatewayLab) -> None:  # noqa: F811
    slot = await lab.running("1")
    load = LoadTest(gateway="gw-1").load
    assert [one.measured for one in await lab.slots.load(operation("load"), slot, load)] == [None] * 5
