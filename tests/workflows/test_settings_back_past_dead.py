"""Settings are taken back on every gateway that answers, whichever ones are dead or have left."""

from datetime import UTC, datetime

import pytest

from policies.model.change import Quarantine
from policies.model.errors import Unavailable
from policies.model.settings import lines_of
from tests.fakes.gateway import FakeSlot
from tests.patience import until
from tests.workflows.recorded import Recorded
from tests.workflows.test_settings import back, configured, with_settings
from tests.workflows.world import OLD


async def test_a_dead_gateway_keeps_no_other_from_the_settings_that_it_had_before(
    recorded: Recorded,
) -> None:
    """Bad name servers: the gateway that had got them first lost its power, and nobody else was asked."""
    await configured(recorded, with_settings(recorded))
    await recorded.service.end_of("edge")
    gateways = recorded.world.gateways
    assert all(fake.settings for fake in gateways.values())
    first = next(iter(gateways))
    gateways[first].fail("observe", Unavailable(f"{first} does not answer"), times=1000)
    await back(recorded)
    ended = recorded.ledger.history("edge")[0]
    left = sorted(name for name, fake in gateways.items() if fake.settings and name != first)
    assert (left, ended.outcome) == ([], "held"), ended.sentence


async def test_a_gateway_that_an_operator_has_quarantined_since_keeps_its_settings(
    recorded: Recorded,
) -> None:
    await configured(recorded, with_settings(recorded))
    await recorded.service.end_of("edge")
    quarantine = Quarantine(
        fleet="edge", gateway="gw-2", reason="its disk dies", person="ben", since=datetime.now(UTC)
    )
    recorded.ledger.set_quarantine(quarantine)
    await back(recorded)
    ended = recorded.ledger.history("edge")[0]
    have = [name for name, fake in recorded.world.gateways.items() if fake.settings]
    assert (have, ended.outcome) == (["gw-2"], "held")
    assert "gw-2: in quarantine by ben: its disk dies" in ended.sentence


async def test_a_gateway_that_joined_since_with_settings_that_are_taken_back_is_named(
    recorded: Recorded,
) -> None:
    """It got them at its installation: its users kept the bad name server that was taken back elsewhere."""
    world, service = recorded.world, recorded.service
    fleet, joiner = with_settings(recorded), world.gateways["gw-4"]
    joiner.slots = {slot.name: FakeSlot() for slot in joiner.gateway.slots}
    joiner.serving = None
    await configured(recorded, fleet.model_copy(update={"gateways": fleet.gateways[:3]}))
    await service.end_of("edge")
    await service.install(fleet, OLD, "http://repository", "ana")
    await service.end_of("edge")
    assert lines_of(joiner.settings) == ("dns = 10.0.0.53",)
    receipt = await service.roll_back(fleet, "ana", "no name is found", settings=True)
    await recorded.nothing_under_way()
    ended = recorded.ledger.history("edge")[0]
    said = f"{receipt.sentence} | {ended.outcome} | {ended.sentence}"
    left = {name: lines_of(fake.settings) for name, fake in world.gateways.items() if fake.settings}
    assert left == {"gw-4": ("dns = 10.0.0.53",)}  # what it would have without them is not known
    assert ended.outcome == "held", said
    assert "gw-4 keeps the settings, since its host has nothing from before them" in ended.sentence


def have_them(recorded: Recorded) -> list[str]:
    return sorted(name for name, fake in recorded.world.gateways.items() if fake.settings)


@pytest.mark.sweep
async def test_a_gateway_in_quarantine_while_penstock_repeated_a_rollback_of_settings_gets_rid_of_them(
    recorded: Recorded,
) -> None:
    """The repeat took back what its own gateways had, and each later rollback answered `already`."""
    await configured(recorded, with_settings(recorded))
    await recorded.service.end_of("edge")
    gateways, ledger, since = recorded.world.gateways, recorded.ledger, datetime.now(UTC)
    out = Quarantine(fleet="edge", gateway="gw-2", reason="its disk dies", person="ben", since=since)
    ledger.set_quarantine(out)
    gateways["gw-3"].fail("observe", Unavailable("gw-3 does not answer"), times=100_000)
    await back(recorded)
    assert (have_them(recorded), ledger.history("edge")[0].outcome) == (["gw-2", "gw-3"], "held")
    gateways["gw-3"].recover("observe")
    await recorded.reconcile()
    await until(lambda: have_them(recorded) == ["gw-2"])
    await recorded.nothing_under_way()
    ledger.clear_quarantines("edge", ["gw-2"], "ben", "new disk")
    await back(recorded)
    assert have_them(recorded) == [], ledger.history("edge")[0].sentence
    assert (await back(recorded)).sentence.startswith("Nothing to do: ")


@pytest.mark.sweep
async def test_a_gateway_that_left_the_file_for_a_while_gets_rid_of_settings_that_were_taken_back_meanwhile(
    recorded: Recorded,
) -> None:
    whole = recorded.world.fleet
    await configured(recorded, with_settings(recorded))
    await recorded.service.end_of("edge")
    others = tuple(one for one in whole.gateways if one.name != "gw-3")
    recorded.world.fleet = whole.model_copy(update={"gateways": others})
    await back(recorded)
    assert (have_them(recorded), recorded.ledger.history("edge")[0].outcome) == (["gw-3"], "rolled_back")
    assert (await back(recorded)).sentence == "Nothing to do: edge-3 took edge-2 back already."
    recorded.world.fleet = whole
    await back(recorded)
    assert have_them(recorded) == [], recorded.ledger.history("edge")[0].sentence
    assert (await back(recorded)).sentence == "Nothing to do: edge-4 took edge-2 back already."
