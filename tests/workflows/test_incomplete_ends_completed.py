"""An incomplete rollback is complete once each gateway that it ended without is back."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.service.drains import DrainService
from orchestrator.service.pins import Pins, sentence_of
from orchestrator.service.quarantine import QuarantineService
from orchestrator.service.telling import told_of
from policies.model.change import Outcome
from policies.model.errors import Unavailable
from policies.model.instance import InstanceState
from tests.fakes.control import UNDECIDED
from tests.patience import until
from tests.workflows.recorded import SOON, Recorded
from tests.workflows.world import NEW

STEPS = ("observe", "restore", "probe", "stop", "read", "fence")


async def ended_without_gw_1(recorded: Recorded) -> str:
    """Have a rollback of a canary end without it, since its agent is away; return the change's name."""
    recorded.world.judge.says(UNDECIDED)
    name = await recorded.start(("gw-1",))
    canary, quarantine = recorded.world.gateways["gw-1"], QuarantineService(recorded.service)
    await until(lambda: recorded.world.serving()["gw-1"] == NEW.version, SOON)
    for step in STEPS:
        canary.fail(step, Unavailable("its agent is away"), times=10_000)
    await recorded.service.roll_back(recorded.world.fleet, "ana", "users call")

    async def is_waited_for() -> bool:
        return "gw-1" in (await recorded.status()).waits_for

    await until(is_waited_for, SOON)
    await quarantine.leave_out(recorded.world.fleet, ("gw-1",), "ana", "its host reboots")
    await recorded.nothing_under_way()
    assert recorded.ledger.change(name).outcome is Outcome.ROLLBACK_INCOMPLETE
    return name


def agent_comes_back(recorded: Recorded) -> None:
    """Have the lease of the trial lapsed in the kernel meanwhile: known-good serves, and 1.3.0 runs on."""
    canary = recorded.world.gateways["gw-1"]
    for step in STEPS:
        canary.recover(step)
    canary.trial_ends = datetime.min.replace(tzinfo=UTC)


async def a_minute_passes(recorded: Recorded) -> None:
    """Have the first minute over in which reconcile leaves alone what was handed over to it."""
    for one in recorded.ledger.quarantined("edge"):
        assert recorded.ledger.clear_quarantine("edge", one.gateway, one.person, "its first minute is over")
        recorded.ledger.set_quarantine(one.model_copy(update={"since": one.since - timedelta(minutes=1)}))


@pytest.mark.sweep
async def test_an_incomplete_rollback_is_complete_once_its_gateway_is_returned_and_seen_on_known_good(
    recorded: Recorded,
) -> None:
    name, ledger, fleet = await ended_without_gw_1(recorded), recorded.ledger, recorded.world.fleet
    await recorded.reconcile()
    assert ledger.change(name).outcome is Outcome.ROLLBACK_INCOMPLETE
    agent_comes_back(recorded)
    for slot in recorded.world.gateways["gw-1"].slots.values():
        if slot.release == NEW:
            slot.state = InstanceState.STOPPED
    await recorded.reconcile()  # a person's word keeps it out, and the rollback is not complete without it
    assert ledger.change(name).outcome is Outcome.ROLLBACK_INCOMPLETE
    returned = await QuarantineService(recorded.service).take_in(fleet, ("gw-1",), "ana", "it is up")
    assert returned.sentence == "gw-1 was seen on its known-good and takes part in changes again."
    record = ledger.change(name)
    assert record.outcome is Outcome.ROLLED_BACK
    assert "not back" not in record.sentence
    assert "; gw-1 was brought back since: seen on its known-good at 20" in record.sentence
    status = told_of(ledger, record)
    assert (status.outcome, status.incomplete, status.waits_for) == (Outcome.ROLLED_BACK, (), ())
    assert status.why == record.sentence
    states = {one.gateway: one.state for one in status.gateways}
    assert states["gw-1"] == "back on known-good"
    pin = Pins(ledger).last("edge")
    assert pin is not None
    assert "on some gateways only" not in sentence_of("edge", pin)
    assert "gw-1 was brought back since" in sentence_of("edge", pin)
    assert ledger.unfinished_change("edge") is None


@pytest.mark.sweep
async def test_a_gateway_whose_drain_stops_the_instance_while_it_is_returned_is_taken_in(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ended_without_gw_1(recorded)
    agent_comes_back(recorded)
    find_drains = DrainService.slots

    async def stopped_just_before(drains: DrainService, fleet: str) -> frozenset[tuple[str, str]]:
        for slot in recorded.world.gateways["gw-1"].slots.values():
            if slot.release == NEW:
                slot.state = InstanceState.STOPPED
        return await find_drains(drains, fleet)

    monkeypatch.setattr(DrainService, "slots", stopped_just_before)
    returned = await QuarantineService(recorded.service).take_in(
        recorded.world.fleet, ("gw-1",), "ana", "it is up"
    )
    assert returned.sentence == "gw-1 was seen on its known-good and takes part in changes again."


@pytest.mark.sweep
async def test_the_return_of_a_gateway_has_the_instance_of_the_failed_release_emptied_and_stopped(
    recorded: Recorded,
) -> None:
    name, ledger = await ended_without_gw_1(recorded), recorded.ledger
    agent_comes_back(recorded)
    canary = recorded.world.gateways["gw-1"]
    [left] = [slot for slot, held in canary.slots.items() if held.release == NEW]
    assert canary.slots[left].state is InstanceState.RUNNING
    returned = await QuarantineService(recorded.service).take_in(
        recorded.world.fleet, ("gw-1",), "ana", "it is up"
    )
    assert returned.sentence == (
        f"gw-1 stays in quarantine: slot {left} runs beside its known-good, and no drain empties it; "
        "penstock empties and stops it within minutes, and returns the gateway by itself."
    )
    await a_minute_passes(recorded)
    await recorded.reconcile()
    await until(lambda: canary.slots[left].state is not InstanceState.RUNNING, SOON)
    await until(lambda: not ledger.quarantined("edge"), SOON)
    await recorded.nothing_under_way()
    await recorded.reconcile()
    assert ledger.change(name).outcome is Outcome.ROLLED_BACK
