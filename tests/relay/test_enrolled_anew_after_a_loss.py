"""A host that is enrolled anew ends what its name was given, also what this ledger does not remember."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.enrolment.names import Certified
from orchestrator.relay.revocations import Revocations
from orchestrator.store.ledger import Ledger
from tests.fakes.ledgers import new_ledger


@dataclass(frozen=True)
class Signed:
    serial: str
    expires: datetime


async def test_a_certificate_that_only_a_lost_ledger_knew_ends_when_its_host_is_enrolled_anew(
    tmp_path: Path,
) -> None:
    """SECURITY.md: it is good until it is revoked, expires or the name is enrolled anew."""
    ends = datetime.now(UTC) + timedelta(days=30)
    before = Ledger.open(new_ledger(tmp_path / "before.db"))
    token, _ = before.make_enrolment("edge", "gw-1", "root")
    before.use_enrolment(token, lambda *_: Signed("aa", ends), "192.0.2.1")
    stolen = Certified(fleet="edge", gateway="gw-1", serial="aa", expires=ends)

    now = Ledger.open(new_ledger(tmp_path / "now.db"))  # runbook ledger-lost: the one before is gone
    token, _ = now.make_enrolment("edge", "gw-1", "root")
    now.use_enrolment(token, lambda *_: Signed("bb", ends), "192.0.2.1")

    revocations = Revocations(now.revoked_gateways)
    assert await revocations.refresh()
    assert not await revocations.refuses(Certified(fleet="edge", gateway="gw-1", serial="bb", expires=ends))
    assert await revocations.refuses(stolen)
