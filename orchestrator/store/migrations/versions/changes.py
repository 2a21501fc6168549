"""Every change gets a line of its own, made of the rollouts and of what known-good tells of the others.

Values of that time are read as plain JSON: this step must work however they are changed later.
"""

import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_TIME = sa.DateTime(timezone=True)
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_DIGEST, _NAME = sa.String(71), sa.String(63)
_LONGEST_NAME = 63

_Row = dict[str, Any]


def upgrade() -> None:
    """Make the tables and carry over what the earlier ones hold."""
    rollouts = _read("rollouts", "number", "started", "ended")
    known_good = _read("known_good", "id", "since")
    for row in known_good:
        del row["id"]  # counted anew in the same order, so that the database knows how far it has counted
    op.drop_table("rollouts")
    op.drop_table("known_good")
    _changes_and_known_good()
    _plans()
    _gateways()
    changes = [_of_rollout(row) for row in rollouts]
    changes += _of_known_good(known_good, {row["name"] for row in changes})
    _number(changes)
    _follow(known_good, changes)
    results = [result for row in rollouts for result in _results(row)]
    _write("changes", changes, "began", "ended")
    _write("known_good", known_good, "since")
    _write("plans", list({row["plan"]: _plan(row) for row in rollouts}.values()), "at")
    _write("gateway_results", results, "at")


def _of_rollout(row: _Row) -> _Row:
    result = json.loads(row["result"]) if row["result"] else {"reason": ""}
    release = json.loads(row["release"])
    return _change(
        row,
        name=row["rollout"],
        kind="upgrade",
        requested_by=row["requested_by"],
        reason=row["requested_because"],
        release=release["version"],
        release_digest=release["digest"],
        plan=row["plan"],
        began=row["started"],
        ended=row["ended"],
        outcome=row["outcome"],
        sentence=result["reason"],
    )


def _of_known_good(rows: Sequence[_Row], rollouts: set[str]) -> list[_Row]:
    """Give each row the change that wrote it, and return the changes that no rollout was.

    A name that wrote twice for one gateway was used by two changes: the second becomes `NAME.2`.
    """
    made, times = dict[str, _Row](), Counter[tuple[str, str]]()
    for row in rows:
        name, fleet, release = row.pop("rollout"), row["fleet"], json.loads(row["release"])
        times[name, row["gateway"]] += 1
        nth = times[name, row["gateway"]]
        again = f".{nth}" if nth > 1 else ""
        row["change"] = name[: _LONGEST_NAME - len(again)] + again
        if row["change"] in rollouts:
            continue
        went_back = (
            again or name.startswith(f"{fleet}-back-") or name in {f"{fleet}-bake", f"{fleet}-reconcile"}
        )
        kind = "install" if name == f"{fleet}-install" else "go_back" if went_back else "upgrade"
        change = made.setdefault(
            row["change"],
            _change(
                row,
                name=row["change"],
                kind=kind,
                requested_by="penstock",
                reason="from before every change had a line of its own",
                release=release["version"],
                release_digest=release["digest"],
                began=row["since"],
                outcome="rolled_back" if kind == "go_back" else "promoted",
                sentence="known-good recorded",
            ),
        )
        change["ended"] = row["since"]
    return list(made.values())


def _change(row: _Row, **fields: Any) -> _Row:
    empty = dict.fromkeys(("plan", "cause", "ended", "taken_back_by"))
    counts = {"moved": 0, "taken_back": 0}
    return {**empty, **counts, "fleet": row["fleet"], "key": f"rollout {fields['name']}", **fields}


def _number(changes: list[_Row]) -> None:
    numbers = Counter[str]()
    changes.sort(key=lambda row: row["began"])
    for row in changes:
        numbers[row["fleet"]] += 1
        row["number"] = numbers[row["fleet"]]


def _follow(rows: Sequence[_Row], changes: Sequence[_Row]) -> None:
    """Follow known-good from its beginning: what was there before, who proved it, who took it back."""
    by_name = {row["name"]: row for row in changes}
    newest, proofs = dict[tuple[str, str], _Row](), defaultdict[tuple[str, str, str], list[str]](list)
    for row in rows:
        key, change = (row["fleet"], row["gateway"]), by_name[row["change"]]
        last = newest.get(key)
        proven = proofs[*key, row["release"]]
        if change["kind"] != "go_back":
            proven.append(change["name"])
        row["before"] = last["release"] if last else None
        row["proven_by"], row["back"], row["newest"] = (proven[-1] if proven else None), False, True
        if last is not None:
            last["newest"] = False
            if last["release"] != row["release"]:
                change["moved"] += 1
                if change["kind"] == "go_back" and last["proven_by"]:
                    taken = by_name[last["proven_by"]]
                    taken["taken_back"], taken["taken_back_by"] = taken["taken_back"] + 1, change["name"]
        newest[key] = row


def _plan(row: _Row) -> _Row:
    plan = json.dumps(json.loads(row["order"])["plan"], separators=(",", ":"), ensure_ascii=False)
    body = zlib.compress(plan.encode())
    return {"digest": row["plan"], "fleet": row["fleet"], "body": body, "header": None, "at": row["started"]}


def _results(row: _Row) -> list[_Row]:
    result = json.loads(row["result"]) if row["result"] else {}
    fixed = {"change": row["rollout"], "at": row["ended"]}
    missing = {name: why for name, _, why in (said.partition(": ") for said in result.get("incomplete", ()))}
    return [
        {
            **fixed,
            "gateway": name,
            "state": "not_back" if name in missing else result["outcome"],
            "sentence": missing.get(name, ""),
        }
        for name in dict.fromkeys([*result.get("touched", ()), *missing])
    ]


def _read(table: str, order: str, *times: str) -> list[_Row]:
    statement = sa.text(f'SELECT * FROM {table} ORDER BY "{order}"')  # noqa: S608 - names of our own
    typed = statement.columns(**dict.fromkeys(times, _TIME))
    return [dict(row) for row in op.get_bind().execute(typed).mappings()]


def _write(table: str, rows: list[_Row], *times: str) -> None:
    if rows:
        columns = [sa.column(name, _TIME if name in times else None) for name in rows[0]]
        op.bulk_insert(sa.table(table, *columns), rows)


def _changes_and_known_good() -> None:
    op.create_table(
        "changes",
        sa.Column("name", _NAME, nullable=False),
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("kind", _NAME, nullable=False),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("release", sa.Text, nullable=False),
        sa.Column("release_digest", _DIGEST),
        sa.Column("plan", _DIGEST),
        sa.Column("cause", _NAME),
        sa.Column("began", _TIME, nullable=False),
        sa.Column("ended", _TIME),
        sa.Column("outcome", _NAME),
        sa.Column("sentence", sa.Text, nullable=False),
        sa.Column("moved", sa.Integer, nullable=False),
        sa.Column("taken_back", sa.Integer, nullable=False),
        sa.Column("taken_back_by", _NAME),
        sa.PrimaryKeyConstraint("name", name="pk_changes"),
        sa.UniqueConstraint("key", name="uq_changes_key"),
        sa.UniqueConstraint("fleet", "number", name="uq_changes_fleet"),
    )
    unended = sa.text("outcome IS NULL")
    op.create_index(
        "ix_changes_open", "changes", ["fleet", "number"], sqlite_where=unended, postgresql_where=unended
    )
    op.create_table(
        "known_good",
        sa.Column("id", _SERIAL),
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("gateway", _NAME, nullable=False),
        sa.Column("change", _NAME, nullable=False),
        sa.Column("release", sa.Text, nullable=False),
        sa.Column("before", sa.Text),
        sa.Column("proven_by", _NAME),
        sa.Column("back", sa.Boolean, nullable=False),
        sa.Column("newest", sa.Boolean, nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_known_good"),
        sa.UniqueConstraint("change", "gateway", name="uq_known_good_change"),
        sa.ForeignKeyConstraint(["change"], ["changes.name"], name="fk_known_good_change"),
    )
    op.create_index("ix_known_good_fleet", "known_good", ["fleet", "gateway", "id"])
    op.create_index(
        "uq_known_good_newest",
        "known_good",
        ["fleet", "gateway"],
        unique=True,
        sqlite_where=sa.text("newest = 1"),
        postgresql_where=sa.text("newest"),
    )


def _plans() -> None:
    op.create_table(
        "plans",
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("header", sa.LargeBinary),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_plans"),
    )
    op.create_table(
        "plan_parts",
        sa.Column("plan", _DIGEST, nullable=False),
        sa.Column("wave", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("plan", "wave", "number", name="pk_plan_parts"),
        sa.ForeignKeyConstraint(["plan"], ["plans.digest"], name="fk_plan_parts_plan"),
    )


def _gateways() -> None:
    op.create_table(
        "gateway_results",
        sa.Column("change", _NAME, nullable=False),
        sa.Column("gateway", _NAME, nullable=False),
        sa.Column("wave", sa.Integer, nullable=False, server_default="0"),
        sa.Column("state", _NAME, nullable=False),
        sa.Column("sentence", sa.Text, nullable=False),
        sa.Column("slot", _NAME),
        sa.Column("started", sa.Float),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("change", "gateway", name="pk_gateway_results"),
        sa.ForeignKeyConstraint(["change"], ["changes.name"], name="fk_gateway_results_change"),
    )
    op.create_index("ix_gateway_results_state", "gateway_results", ["change", "state", "gateway"])
    op.create_table(
        "gateway_states",
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("gateway", _NAME, nullable=False),
        sa.Column("state", sa.Text),
        sa.Column("silent", sa.Text),
        sa.Column("on_known_good", _TIME),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("fleet", "gateway", name="pk_gateway_states"),
    )
    op.create_table(
        "watch_states",
        sa.Column("change", _NAME, nullable=False),
        sa.Column("wave", sa.Integer, nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("change", "wave", "digest", name="pk_watch_states"),
    )
    op.create_table(
        "quarantine",
        sa.Column("fleet", _NAME, nullable=False),
        sa.Column("gateway", _NAME, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("until", _TIME),
        sa.PrimaryKeyConstraint("fleet", "gateway", name="pk_quarantine"),
    )
