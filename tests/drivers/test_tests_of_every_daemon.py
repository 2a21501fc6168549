"""What a fleet's file may ask of a daemon is what its driver makes: nothing else would get a number."""

from pathlib import Path

import pytest

from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.ocserv import inspection as of_ocserv
from activities.drivers.daemon.openvpn import inspection as of_openvpn
from activities.drivers.daemon.port import Environment, Mirrors
from activities.drivers.daemon.products import DAEMONS, daemon_of
from activities.drivers.daemon.strongswan.daemon import StrongSwan
from policies.exposure import exposure, findings_of
from policies.model.fleet import UNMADE, UNMADE_TESTS
from policies.model.instance import Probe
from policies.model.release_tests import Asked, Measurement, Method, Outcome, ReleaseTests

BY_THE_HOST = {Asked.FILES, Asked.CONFIG}
EVERY_FLEET = {*ReleaseTests().asked(Method.TRIED)}


class LetsIn(StrongSwan):
    """A driver of strongSwan whose probe is let in; no charon is started."""

    async def probe(self, environment: Environment) -> Probe:
        """Return a login with all its pings."""
        del environment
        return Probe(passed=True, stage="ping", pings_sent=2, reason="let in")


async def test_a_release_of_strongswan_passes_once_the_tests_that_it_has_not_are_skipped(
    tmp_path: Path,
) -> None:
    login = ProbeLogin("probe", None, tmp_path / "authority")
    made = await LetsIn(login).inspect(None)  # type: ignore[arg-type]  # its probe asks nothing of it
    by_host = [Measurement(test=test, measured=0, said="seen") for test in BY_THE_HOST]
    tests = ReleaseTests(skip=UNMADE_TESTS["strongswan"])
    assert exposure(findings_of(tests, [*by_host, *made], Method.TRIED)).outcome is Outcome.PASSED
    without = ReleaseTests()
    assert exposure(findings_of(without, [*by_host, *made], Method.TRIED)).outcome is Outcome.UNKNOWN
    numbered = {one.test for one in made if one.measured is not None}
    assert {*numbered, *BY_THE_HOST, *UNMADE_TESTS["strongswan"]} == EVERY_FLEET


@pytest.mark.parametrize("made", [of_ocserv.MADE, of_openvpn.MADE])
def test_the_other_daemons_make_every_test_that_a_fleet_has(made: tuple[Asked, ...]) -> None:
    assert {*made, *BY_THE_HOST} >= EVERY_FLEET


@pytest.mark.parametrize("daemon", sorted(DAEMONS))
def test_a_mirror_is_refused_of_exactly_the_daemons_that_have_none(daemon: str) -> None:
    assert isinstance(daemon_of(daemon), Mirrors) == ("tests.mirror" not in UNMADE[daemon])
