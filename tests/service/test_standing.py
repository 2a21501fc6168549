"""What status says of a fleet is so: whom a change counts, who waits, and how people call what serves."""

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from activities.ledger import EventEntry, LedgerActivities
from orchestrator.cli.following import code_of_fleet
from orchestrator.exit_code import ExitCode
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from orchestrator.words.times import moment
from policies.adoption import release_of
from policies.model.change import ChangeKind, ChangeOpening, KnownGoodBatch, Outcome
from policies.model.instance import GatewayState, Instance, InstanceState, Steering
from policies.model.plan import ReleaseRef
from policies.model.value import digest_of
from policies.notices.entries import NOT_TAKEN_BACK, TAKEN_BACK
from tests.service.command_line import CommandLine
from tests.service.test_every_state import OBSERVING, State, ended, written

ADOPTED = release_of("ocserv", "1.1.6", digest_of(b"what was found"))
NEW = ReleaseRef(
    digest=digest_of(b"new"), product="ocserv", version="1.3.0", executable=digest_of(b"executable")
)
COUNTS = {1: {"kept": 2, "left out": 1}}
WHY = (
    "edge-1 failed by itself after its promotion by edge-1 and is not taken back: no route. It is tried again"
)


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        ((ChangeKind.UPGRADE, OBSERVING | {"counts": COUNTS}, None), {"kept": 2, "left out": 1}),
        (ended(Outcome.ROLLED_BACK, counts=COUNTS), {"back on known-good": 2, "left out": 1}),
    ],
    ids=["under way", "rolled back"],
)
async def test_a_gateway_that_was_left_out_before_it_started_is_none_that_a_change_has_touched(
    state: State, counts: dict[str, int], penstock: CommandLine, ledger: Ledger
) -> None:
    written(ledger, state)
    change = json.loads((await penstock("status", "edge", "-o", "json")).out)["data"]["change"]
    assert change["users"].startswith("2 of ")
    assert change["counts"] == counts


def moved(ledger: Ledger, release: ReleaseRef) -> None:
    opening = ChangeOpening(
        key=release.digest,
        fleet="edge",
        kind=ChangeKind.UPGRADE,
        requested_by="ana",
        reason="CVE",
        release=release.version,
    )
    releases = {"edge-1": release}
    change = ledger.open_change(opening)
    ledger.record_known_good_batch(KnownGoodBatch(fleet="edge", change=change, releases=releases))


async def test_what_was_adopted_keeps_its_name_until_its_gateway_is_seen_on_the_next_release(
    penstock: CommandLine, service: Service, ledger: Ledger
) -> None:
    serves = Instance(slot="a", state=InstanceState.RUNNING, release=ADOPTED.digest)
    state = GatewayState(
        gateway="edge-1",
        instances=(serves,),
        steering=Steering(serving="a"),
        epoch=1,
        observed_at=datetime.now(UTC),
    )
    ledger.record_states("edge", [state], {})
    for release in (ADOPTED, NEW):
        moved(ledger, release)
        said = json.loads((await penstock("status", "edge", "-o", "json")).out)["data"]
        assert said["standing"]["versions"] == [ADOPTED.version]
        glances = await service.glances(service.people.at_the_socket(0))
        assert [one.versions for one in glances if one.fleet == "edge"] == [(ADOPTED.version,)]


async def test_a_gateway_that_waits_to_be_taken_back_alone_needs_an_operator_until_it_is_back(
    penstock: CommandLine, page: httpx.AsyncClient, ledger: Ledger
) -> None:
    moved(ledger, NEW)

    async def told(action: str, sentence: str) -> None:
        entry = EventEntry(
            action=action, fleet="edge", subject="edge/edge-1", sentence=sentence, key=f"run {action}"
        )
        await LedgerActivities(ledger).record_event(entry)

    async def code() -> ExitCode:
        status = json.loads((await penstock("status", "edge", "-o", "json")).out)["data"]
        return code_of_fleet({**status, "concern": None})  # no engine answers here

    before, well = await penstock("status", "edge"), await code()
    await told(NOT_TAKEN_BACK, WHY)
    said = await penstock("status", "edge")
    assert (well, await code()) == (ExitCode.DONE, ExitCode.HELD)
    needs = f"NEEDS YOU {WHY.replace('edge-1 failed', 'edge-1: failed')}. Runbook: gateway-unwell"
    assert needs in " ".join(said.out.split())
    assert "gateway-unwell" in (await page.get("/fleets/edge")).text
    assert "1 gateway failed alone and is not taken back" in (await page.get("/")).text
    await told(TAKEN_BACK, "edge-1 is taken back from edge-1")
    after = await penstock("status", "edge")
    assert ("gateway-unwell" in before.out, "gateway-unwell" in after.out) == (False, False)


async def test_what_gateways_say_outranks_what_an_older_ledger_tells_of_its_newest_change(
    penstock: CommandLine, service: Service, page: httpx.AsyncClient, ledger: Ledger
) -> None:
    """A fresh reader's H3: a restored ledger said ROLLED BACK while every gateway had the release."""
    written(ledger, ended(Outcome.ROLLED_BACK, moved=True))
    serves = Instance(slot="a", state=InstanceState.RUNNING, release=NEW.digest)

    def steered_by(change: str) -> None:
        state = GatewayState(
            gateway="edge-1",
            instances=(serves,),
            steering=Steering(serving="a", generation=f"{change}/1"),
            epoch=1,
            observed_at=datetime.now(UTC),
        )
        ledger.record_states("edge", [state], {})

    async def told() -> tuple[ExitCode, str]:
        status = json.loads((await penstock("status", "edge", "-o", "json")).out)["data"]
        status["concern"] = None  # no engine answers here
        return code_of_fleet(status), " ".join((await penstock("status", "edge", COLUMNS="400")).out.split())

    steered_by("edge-1")
    code, before = await told()
    assert (code, "NEEDS YOU the ledger" in before) == (ExitCode.ROLLED_BACK, False)
    steered_by("edge-9")
    code, said = await told()
    root = service.people.at_the_socket(0)
    found = await service.examine(root)
    sentence = next(one.sentence for one in found if one.about == "edge: known-good")
    assert sentence.startswith("the ledger is older than its gateways: edge-1 was last steered by edge-9")
    assert f"NEEDS YOU {sentence}: penstock ledger rebuild edge" in said
    assert code is ExitCode.HELD
    assert sentence in (await page.get("/fleets/edge")).text
    glances = [one.ahead for one in await service.glances(root) if one.fleet == "edge"]
    assert [one.sentence for one in glances if one is not None] == [sentence]
    assert sentence in (await page.get("/")).text


async def test_what_a_fleet_is_on_is_dated_by_the_oldest_look_that_counts(
    penstock: CommandLine, page: httpx.AsyncClient, ledger: Ledger
) -> None:
    """A fresh reader's H4: what gateways served 40 s ago was called now, while a change had moved them."""
    assert "as of" not in (await penstock("status", "edge")).out
    moved(ledger, NEW)
    states = [
        GatewayState(
            gateway="edge-1",
            instances=(Instance(slot="a", state=InstanceState.RUNNING, release=NEW.digest),),
            steering=Steering(serving="a"),
            epoch=1,
            observed_at=datetime.now(UTC),
        )
    ]
    ledger.record_states("edge", states, {})
    (at,) = ledger.said_at("edge", timedelta(minutes=5)).values()
    line = f"1 of 1 gateways take users, as of {moment(at.isoformat())}"
    for words in (("status", "edge"), ("fleet", "show", "edge")):
        said = " ".join((await penstock(*words, COLUMNS="400")).out.split())
        assert line in said
        assert "now on" not in said
    assert line in " ".join((await page.get("/fleets/edge")).text.split())


async def test_a_gateway_that_left_the_file_is_counted_beside_those_of_the_fleet(
    penstock: CommandLine, service: Service, ledger: Ledger
) -> None:
    """A fresh reader saw "4 of 3 gateways take users"."""
    serves = Instance(slot="a", state=InstanceState.RUNNING, release=NEW.digest)
    states = [
        GatewayState(
            gateway=name,
            instances=(serves,),
            steering=Steering(serving="a"),
            epoch=1,
            observed_at=datetime.now(UTC),
        )
        for name in ("edge-1", "edge-gone")
    ]
    ledger.record_states("edge", states, {})
    said = " ".join((await penstock("status", "edge", COLUMNS="400")).out.split())
    assert "1 of 1 gateways take users, and 1 that is not in the fleet's file any more" in said
    glances = await service.glances(service.people.at_the_socket(0))
    assert [(one.taking, one.heard, one.departed) for one in glances if one.fleet == "edge"] == [(1, 1, 1)]
