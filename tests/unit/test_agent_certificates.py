"""How a certificate stands: by its life, by what was revoked, and by what nobody wrote down."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.words.certificates import STATES, mended_by
from policies.agent_certificates import CertificateState, Life, certificate_state

ISSUED = datetime(2026, 11, 1, tzinfo=UTC)
LIFE = Life(ISSUED, ISSUED + timedelta(days=30))


@pytest.mark.parametrize(
    ("day", "state"),
    [
        (0.0, CertificateState.GOOD),
        (20.5, CertificateState.GOOD),  # its renewal is due and has not failed for long
        (22.5, CertificateState.GOOD),
        (22.6, CertificateState.LATE),
        (27.0, CertificateState.LATE),
        (27.1, CertificateState.ENDING),
        (29.99, CertificateState.ENDING),
        (30.0, CertificateState.ENDED),
        (400.0, CertificateState.ENDED),
    ],
)
def test_a_certificate_stands_as_much_as_is_left_of_its_life(day: float, state: CertificateState) -> None:
    now = ISSUED + timedelta(days=day)
    assert certificate_state(LIFE, now, revoked=False, described=True) is state
    assert certificate_state(LIFE, now, revoked=True, described=True) is state, "issued after the revocation"


def test_what_was_never_written_down_is_not_known_and_never_good() -> None:
    assert certificate_state(None, ISSUED, revoked=False, described=True) is CertificateState.UNKNOWN


@pytest.mark.parametrize("described", [True, False])
def test_who_has_nothing_since_a_revocation_is_revoked(described: bool) -> None:
    assert certificate_state(None, ISSUED, revoked=True, described=described) is CertificateState.REVOKED


def test_a_good_certificate_of_a_gateway_that_no_file_describes_needs_somebody() -> None:
    assert certificate_state(LIFE, ISSUED, revoked=False, described=False) is CertificateState.STRAY
    assert certificate_state(LIFE, LIFE.expires, revoked=False, described=False) is None
    assert CertificateState.STRAY.rank < CertificateState.GOOD.rank


def test_every_state_has_a_name_in_the_order_in_which_they_need_somebody() -> None:
    assert list(STATES) == [state.value for state in sorted(CertificateState, key=lambda one: one.rank)]


@pytest.mark.parametrize("state", [*CertificateState])
def test_whatever_is_not_good_has_a_command_that_mends_it(state: CertificateState) -> None:
    command = mended_by("edge", {"gateway": "edge-1", "state": state.value, "described": state != "stray"})
    assert (command is None) == (state is CertificateState.GOOD)
