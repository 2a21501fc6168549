"""What gateways said: what a status reads of it is what the whole of it says."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, update

from orchestrator.store import tables
from orchestrator.store.ledger import Ledger
from policies.drift import digest_of_file
from policies.model.instance import GatewayState, GivenCredential, Instance, InstanceState, Steering
from policies.model.value import digest_of

RELEASE, TRIED = digest_of(b"release"), digest_of(b"tried")
LATELY = timedelta(minutes=5)


def state(gateway: str, steering: Steering, *instances: Instance) -> GatewayState:
    return GatewayState(
        gateway=gateway, instances=instances, steering=steering, epoch=1, observed_at=datetime.now(UTC)
    )


@pytest.fixture
def ledger(url: str) -> Ledger:
    return Ledger.open(url)


def test_what_takes_users_is_counted_by_release_and_who_is_silent_is_named(ledger: Ledger) -> None:
    old = Instance(slot="a", state=InstanceState.RUNNING, release=RELEASE)
    new = Instance(slot="b", state=InstanceState.RUNNING, release=TRIED)
    said = (
        state("gw-1", Steering(serving="a"), old),
        state("gw-2", Steering(serving="a", trial="b"), old, new),
        state("gw-3", Steering(serving="a"), Instance(slot="a", state=InstanceState.RUNNING)),
        state("gw-4", Steering(serving="a"), Instance(slot="a", state=InstanceState.FAILED)),
        state("gw-5", Steering()),
        state("gw-6", Steering(serving="a"), old),
    )
    ledger.record_states("edge", said, {"gw-7": "does not answer"})
    ledger.record_states("core", said[:1], {})
    assert ledger.taking("edge", LATELY) == ({RELEASE: 2, TRIED: 1, "": 1}, {"gw-7": "does not answer"})
    ledger.record_states("edge", said[5:6], {"gw-1": "is gone", "gw-2": "is gone"})
    assert ledger.taking("edge", LATELY)[0] == {RELEASE: 1, "": 1}
    assert ledger.taking("edge", timedelta(0)) == ({}, {})


def test_what_an_earlier_version_took_and_does_not_fit_any_more_hides_one_gateway_only(
    ledger: Ledger, url: str
) -> None:
    said = [state(name, Steering(serving="a")) for name in ("gw-1", "gw-2")]
    ledger.record_states("edge", said, {})
    unfit = said[1].model_copy(update={"epoch": 10**400})
    with create_engine(url).begin() as connection:
        rows = update(tables.gateway_states).where(tables.gateway_states.c.gateway == "gw-2")
        connection.execute(rows.values(state=unfit.model_dump_json()))
    states, silent = ledger.states("edge", LATELY)
    assert (list(states), silent) == (["gw-1"], {"gw-2": "what it said last cannot be read any more"})


@pytest.mark.parametrize("older", [False, True])
def test_what_agents_files_say_is_read_without_their_states_and_out_of_those_of_an_older_penstock(
    ledger: Ledger, url: str, older: bool
) -> None:
    said = state("gw-1", Steering(serving="a"))
    key, users = GivenCredential(name="key", elsewhere=True), GivenCredential(name="users")
    lines = ("port: 443", "fleet: edge")
    tells = said.model_copy(update={"described": lines, "credentials": (key, users)})
    silent = said.model_copy(update={"gateway": "gw-2"})
    ledger.record_states("edge", (tells, silent), {"gw-3": "does not answer"})
    if older:
        with create_engine(url).begin() as connection:
            connection.execute(update(tables.gateway_states).values(described=None, elsewhere=None))
    assert ledger.agents_files("edge", LATELY) == {
        "gw-1": (digest_of_file(sorted(lines)), ("key",)),
        "gw-2": (None, None),
    }
    assert ledger.agents_files("edge", timedelta(0)) == {}


def test_an_answer_is_from_when_its_gateway_was_asked_and_not_from_when_it_was_written_down(
    ledger: Ledger,
) -> None:
    said, now = state("gw-1", Steering(serving="a")), datetime.now(UTC)
    asked = now - timedelta(seconds=30)
    ledger.record_states("edge", [said], {"gw-2": "does not answer"}, {"gw-1": asked, "gw-2": asked})
    assert ledger.asked_at("edge") == {"gw-1": asked, "gw-2": asked}
    assert ledger.said_at("edge", LATELY) == {"gw-1": asked}
    assert ledger.said_at("edge", timedelta(seconds=20)) == {}


@pytest.mark.parametrize(
    ("epoch", "asked_before", "is_kept"),
    [
        pytest.param(1, 20, True, id="asked earlier, of a page that was written down later"),
        pytest.param(1, -20, False, id="asked later"),
        pytest.param(2, 20, False, id="asked earlier, and a change steered it before it answered"),
        pytest.param(0, -20, True, id="of before a change, which others have read already"),
        pytest.param(0, -90, False, id="of a host that has lost its table"),
        pytest.param(1, 3600, False, id="by a clock that has been set back since"),
        pytest.param(None, 20, True, id="silent before it answered"),
        pytest.param(None, -20, False, id="silent since it answered"),
    ],
)
def test_what_a_gateway_said_last_is_kept_in_whatever_order_answers_are_written_down(
    ledger: Ledger, epoch: int | None, asked_before: int, is_kept: bool
) -> None:
    first = datetime.now(UTC) - timedelta(hours=2)
    said, asked = state("gw-1", Steering(serving="a")), first - timedelta(seconds=asked_before)
    ledger.record_states("edge", [said], {}, {"gw-1": first})
    if epoch is None:
        ledger.record_states("edge", [], {"gw-1": "does not answer"}, {"gw-1": asked})
    else:
        other = said.model_copy(update={"epoch": epoch, "steering": Steering(serving="b")})
        ledger.record_states("edge", [other], {}, {"gw-1": asked})
    assert ledger.asked_at("edge") == {"gw-1": first if is_kept else asked}
    (kept,) = ledger.gateway_rows("edge", ["gw-1"])
    assert (kept.state == said) == is_kept
