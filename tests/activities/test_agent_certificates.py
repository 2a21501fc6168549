"""What the ledger says of certificates, of whatever was done to them, in either database."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.store.agent_certificates import OpenRow
from orchestrator.store.ledger import Ledger

DAY = timedelta(days=1)


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    found = Ledger.open(url)
    yield found
    found.close()


@dataclass(frozen=True)
class Signed:
    """A certificate as the ledger keeps it."""

    serial: str
    expires: datetime


def signed(serial: str, days: float) -> Signed:
    """Return one that is good for so many days from now, to the second."""
    return Signed(serial, datetime.now(UTC).replace(microsecond=0) + days * DAY)


def test_the_newest_certificate_counts_also_where_an_older_one_is_good_for_longer(ledger: Ledger) -> None:
    """`PENSTOCK_GATEWAY_CERTIFICATE_DAYS` was made smaller in between."""
    first, second = signed("1a", 30), signed("2b", 7)
    secret, _ = ledger.make_enrolment("edge", "gw-1", "ada")
    ledger.use_enrolment(secret, lambda *_: first, "192.0.2.1")
    ledger.renew_certificate(
        "edge", "gw-1", "1a", datetime.now(UTC), lambda: second, lambda *_: first, "192.0.2.1"
    )
    rows = ledger.agent_certificates("edge")
    assert rows.issued["gw-1"].expires == second.expires
    assert rows.issued["gw-1"].issued <= datetime.now(UTC)
    assert (rows.revoked, rows.open) == ({}, {})


def test_what_was_revoked_is_issued_no_more_and_says_by_whom_and_why(ledger: Ledger) -> None:
    secret, _ = ledger.make_enrolment("edge", "gw-1", "ada")
    ledger.use_enrolment(secret, lambda *_: signed("1a", 30), "192.0.2.1")
    before = datetime.now(UTC)
    ledger.revoke_certificates("edge", "gw-1", "ben", "stolen from rack 7")
    rows = ledger.agent_certificates("edge")
    assert rows.issued == {}
    assert (rows.revoked["gw-1"].person, rows.revoked["gw-1"].reason) == ("ben", "stolen from rack 7")
    assert before <= rows.revoked["gw-1"].at <= datetime.now(UTC)


def test_only_tokens_that_can_be_used_are_open(ledger: Ledger) -> None:
    used, _ = ledger.make_enrolment("edge", "gw-1", "ada")
    ledger.use_enrolment(used, lambda *_: signed("1a", 30), "192.0.2.1")
    ledger.make_enrolment("edge", "gw-2", "ada")
    ledger.revoke_certificates("edge", "gw-2", "ben", "another rack")
    _, until = ledger.make_enrolment("edge", "gw-3", "ada")
    assert ledger.agent_certificates("edge").open == {"gw-3": OpenRow("ada", until)}
    assert ledger.agent_certificates("core") == ({}, {}, {})
