"""A host that is enrolled anew ends earlier certificates of its name, also those that a lost ledger knew."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.enrolment.names import Certified
from orchestrator.relay.revocations import Revocations
from orchestrator.store.ledger import Ledger
from policies.model.errors import NotAllowed
from tests.fakes.ledgers import new_ledger

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
BACKDATED = timedelta(minutes=5)
"""How long before its signature a certificate begins."""


@dataclass(frozen=True)
class Signed:
    serial: str
    expires: datetime = NOW + 30 * DAY


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A new ledger, after the one before was lost (runbook ledger-lost)."""
    ledger = Ledger.open(new_ledger(tmp_path / "now.db"))
    yield ledger
    ledger.close()


def enrol(ledger: Ledger, serial: str) -> None:
    token, _ = ledger.make_enrolment("edge", "gw-1", "root")
    ledger.use_enrolment(token, lambda *_: Signed(serial), "192.0.2.1")


def certificate(serial: str, begins: datetime) -> Certified:
    return Certified("edge", "gw-1", serial, begins, NOW + 30 * DAY)


def renew(ledger: Ledger, shown: Certified) -> None:
    """Renew what was shown; the next certificate is `cc`."""
    ledger.renew_certificate(
        *(shown.fleet, shown.gateway, shown.serial, shown.begins),
        *(lambda: Signed("cc"), lambda *_: Signed("cc"), "192.0.2.1"),
    )


async def refuses(ledger: Ledger, shown: Certified) -> bool:
    revocations = Revocations(ledger.admitted_certificates)
    assert await revocations.refresh()
    return await revocations.refuses(shown)


async def test_a_certificate_that_only_a_lost_ledger_knew_ends_when_its_host_is_enrolled_anew(
    ledger: Ledger,
) -> None:
    stolen = certificate("aa", NOW - DAY)
    assert not await refuses(ledger, stolen)
    enrol(ledger, "bb")
    assert await refuses(ledger, stolen)
    with pytest.raises(NotAllowed, match="was revoked; enrol its host anew"):
        renew(ledger, stolen)
    assert not await refuses(ledger, certificate("bb", NOW - BACKDATED))


async def test_a_certificate_that_was_renewed_after_the_copy_of_a_ledger_is_good_in_that_copy(
    ledger: Ledger,
) -> None:
    """After a restore the gateways that had renewed meanwhile would otherwise have to be enrolled anew."""
    enrol(ledger, "bb")
    renewed = certificate("dd", NOW + DAY)
    assert not await refuses(ledger, renewed)
    renew(ledger, renewed)
    assert not await refuses(ledger, certificate("cc", NOW + DAY))


async def test_after_a_revocation_no_unknown_certificate_is_good_whenever_it_began(ledger: Ledger) -> None:
    enrol(ledger, "bb")
    ledger.revoke_certificates("edge", "gw-1", "ana", "stolen")
    enrol(ledger, "ee")
    assert await refuses(ledger, certificate("dd", NOW + DAY))
    assert not await refuses(ledger, certificate("ee", NOW - BACKDATED))
