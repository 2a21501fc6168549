"""The ledgers of earlier penstocks, made by their own steps, opened by this one."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, DateTime, insert
from sqlalchemy.sql.expression import column, table

from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeEnding, KnownGoodBatch, Outcome
from policies.model.errors import BadInput
from policies.model.plan import ReleaseRef
from policies.model.value import digest_of
from tests.activities.test_ledger import NEW, NEWER, OLD, opened
from tests.activities.test_recorded_plans import plan_of
from tests.fakes.ledgers import ledger_of

AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
KNOWN_GOOD: tuple[tuple[str, str, ReleaseRef], ...] = (
    ("north-install", "gw-1", OLD),
    ("north-install", "gw-2", OLD),
    ("north-1", "gw-1", NEW),
    ("north-1", "gw-2", NEW),
    ("north-bake", "gw-1", OLD),
    ("north-bake", "gw-2", OLD),
    ("north-2", "gw-1", NEWER),
    ("north-2", "gw-2", NEWER),
    ("north-bake", "gw-1", NEW),
    ("north-3", "gw-1", NEWER),
)


def write(connection: Connection, name: str, rows: list[dict[str, Any]]) -> None:
    times = {"at", "since", "started", "ended"}
    columns = [column(field, DateTime(timezone=True) if field in times else None) for field in rows[0]]
    connection.execute(insert(table(name, *columns)), rows)


PLAN = plan_of(2, waves=(1, 1))


def rollout(number: int, minute: int, end: dict[str, Any] | None) -> dict[str, Any]:
    """Return a row as earlier penstocks wrote it."""
    order = {
        "rollout": f"north-{number}",
        "plan": PLAN.model_dump(mode="json"),
        "source": "https://releases.example",
        "requested_by": "ada",
        "reason": f"reason {number}",
    }
    return {
        "rollout": order["rollout"],
        "fleet": "north",
        "plan": PLAN.digest,
        "release": NEW.model_dump_json(),
        "order": json.dumps(order),
        "requested_by": "ada",
        "requested_because": order["reason"],
        "started": AT + timedelta(minutes=minute),
        "ended": AT + timedelta(minutes=minute, seconds=30) if end else None,
        "outcome": end["outcome"] if end else None,
        "result": json.dumps(end) if end else None,
    }


def ended(number: int, outcome: Outcome, incomplete: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return how a rollout ended as earlier penstocks wrote it."""
    return {
        "rollout": f"north-{number}",
        "outcome": outcome.value,
        "reason": f"it was {outcome}",
        "decision": None,
        "touched": ["gw-1", "gw-2"],
        "incomplete": list(incomplete),
        "steered_back_after": None,
    }


@pytest.fixture(params=["0001", "0002"])
def ledger(request: pytest.FixtureRequest, bare: str) -> Iterator[Ledger]:
    """The ledger of that revision with a year in it, opened by this penstock."""
    with ledger_of(request.param, bare) as connection:
        incomplete = ended(4, Outcome.ROLLBACK_INCOMPLETE, ("gw-2: its disk is full",))
        write(
            connection,
            "rollouts",
            [
                rollout(1, 2, ended(1, Outcome.PROMOTED)),
                rollout(2, 6, ended(2, Outcome.PROMOTED)),
                rollout(3, 9, ended(3, Outcome.PROMOTED)),
                rollout(4, 20, incomplete),
                rollout(5, 30, None),
            ],
        )
        rows = [
            {
                "fleet": "north",
                "gateway": gateway,
                "rollout": name,
                "release": release.model_dump_json(),
                "since": AT + timedelta(minutes=minute, seconds=20),
            }
            for minute, (name, gateway, release) in enumerate(KNOWN_GOOD)
        ]
        write(connection, "known_good", rows)
    book = Ledger.open(bare)
    yield book
    book.close()


def test_every_change_that_an_earlier_penstock_knew_of_is_in_the_history(ledger: Ledger) -> None:
    said = [(row.name, row.kind.value, row.release, row.standing) for row in ledger.history("north")]
    assert said == [
        ("north-5", "upgrade", "1.3.0", "under way"),
        ("north-4", "upgrade", "1.3.0", "rollback incomplete"),
        ("north-3", "upgrade", "1.3.0", "promoted"),
        ("north-bake.2", "go_back", "1.3.0", "rolled back"),
        ("north-2", "upgrade", "1.3.0", "promoted, taken back on 1 of 2 gateways by north-bake.2"),
        ("north-bake", "go_back", "1.1.6", "rolled back"),
        ("north-1", "upgrade", "1.3.0", "promoted, taken back by north-bake"),
        ("north-install", "install", "1.1.6", "promoted"),
    ]
    assert [row.number for row in ledger.history("north")] == list(range(8, 0, -1))


def test_a_rollout_keeps_who_asked_for_it_when_and_why_it_ended(ledger: Ledger) -> None:
    row = ledger.change("north-2")
    assert (row.requested_by, row.reason, row.sentence) == ("ada", "reason 2", "it was promoted")
    assert (row.began, row.ended) == (AT + timedelta(minutes=6), AT + timedelta(minutes=6, seconds=30))
    assert row.plan == PLAN.digest


@pytest.mark.sweep
def test_known_good_and_what_was_before_it_are_carried_over(ledger: Ledger) -> None:
    assert ledger.known_good("north") == {"gw-1": NEWER, "gw-2": NEWER}
    assert ledger.targets("north", "north-3") == {"gw-1": NEW}
    assert ledger.targets("north", "north-2") == {"gw-2": OLD}
    assert ledger.ever_known_good("north")["gw-1"] == (NEWER, NEW, NEWER, OLD, NEW, OLD)


def test_gateways_that_were_not_back_are_carried_over_with_what_kept_them(ledger: Ledger) -> None:
    rows = [(row.gateway, row.state, row.sentence) for row in ledger.gateways_of("north-4")]
    assert rows == [("gw-1", "rollback_incomplete", ""), ("gw-2", "not_back", "its disk is full")]


def test_plans_of_old_are_a_record_that_cannot_be_run_again(ledger: Ledger) -> None:
    assert ledger.plan(PLAN.digest) == PLAN
    with pytest.raises(BadInput, match="only a record"):
        ledger.plan_header(PLAN.digest)


def test_a_ledger_that_was_carried_over_goes_on_as_any_other(ledger: Ledger) -> None:
    done = ChangeEnding(change="north-5", outcome=Outcome.PROMOTED, sentence="every wave passed")
    ledger.close_change(done)  # it was under way when penstock itself was upgraded
    back = opened(ledger, "after the upgrade of penstock")
    ledger.record_known_good_batch(KnownGoodBatch(fleet="north", change=back, releases={"gw-1": NEW}))
    assert [row.name for row in ledger.history("north", 2)] == [back, "north-5"]
    assert ledger.known_good("north") == {"gw-1": NEW, "gw-2": NEWER}
    assert digest_of(b"") not in {row.plan for row in ledger.history("north")}
    assert ledger.verify_audit() is None


def test_a_new_change_never_gets_the_name_of_an_old_one(ledger: Ledger) -> None:
    taken = {row.name for row in ledger.history("north")}
    new = opened(ledger, "one more")
    assert new not in taken
    assert ledger.change(new).number == 9
