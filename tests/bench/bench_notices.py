"""Notices: what one look costs while 500 changes go on, beside the bare rows that it looks at.

Ledger, policies and writing are real, in this process; the outbox holds months of notices. The join of what
people say is that of one fleet of 10,000 gateways, with as much said as is ever taken.
"""

import argparse
import json
import sqlite3
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert, update

from orchestrator.noticing.around import LookingAround, Wrong
from orchestrator.noticing.looking import Looking
from orchestrator.service.signals import signals_about
from orchestrator.store import tables
from orchestrator.store.database import writing
from orchestrator.store.ledger import Ledger
from orchestrator.store.signals import MOST_COMPLAINTS
from orchestrator.store.tickets import MOST_KEPT
from policies.model.change import ChangeKind, ChangeOrder, Phase
from policies.model.notice import Notice, NoticeLevel
from policies.model.notice_rules import NoticeRules
from policies.model.report import GatewayProgress
from policies.model.ticket import Ticket
from policies.status.told import Told

CHANGES, GATEWAYS, KEPT = 500, 10_000, 50_000
OF_CHANGE = 20
"""Gateways that a change names in what it tells."""
RULES = NoticeRules.model_validate(
    {
        "apiVersion": "penstock/v1",
        "sinks": [{"name": "chat", "kind": "chat"}],
        "routes": [{"sinks": ["chat"]}],
    }
)


@dataclass(frozen=True)
class Cost:
    """What something cost this process, in seconds."""

    what: str
    wall: float
    cpu: float


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Measure looks and the join; print each beside the bare rows of all changes."""
    parser = argparse.ArgumentParser(prog="bench notices")
    parser.add_argument("--changes", type=int, default=CHANGES)
    parser.add_argument("--gateways", type=int, default=GATEWAYS)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        costs = _measure(Path(folder) / "ledger.db", asked.changes, asked.gateways)
    bare = costs[0]
    print(f"notices of {asked.changes} changes, {asked.gateways} gateways; {KEPT} notices are kept")
    print(f"{'':<52}  wall s   cpu s   cpu / rows alone")
    for cost in costs:
        print(f"{cost.what:<52}{cost.wall:>8.3f}{cost.cpu:>8.3f}{cost.cpu / bare.cpu:>10.1f}")
    if json_path is not None:
        json_path.write_text(json.dumps([asdict(cost) for cost in costs], indent=2) + "\n")
    return 0


def _measure(path: Path, changes: int, gateways: int) -> list[Cost]:
    ledger = Ledger.open(f"sqlite:///{path}")
    _keep_old(ledger)
    looks = Looking(ledger, lambda: RULES, "bench")
    looks.look()
    around = LookingAround(ledger, looks)
    _tell(ledger, changes, begun=True)
    begun = _cost("a look: each change has begun, all new", looks.look)
    _tell(ledger, changes)
    told = _cost("a look: each told something, nothing is new", looks.look)
    idle = _cost("a look: nothing was told", looks.look)
    _tell(ledger, changes, phase=Phase.HELD, holds={"ana": "calls come in"})
    held = _cost("a look: each is held now, all new", looks.look)
    _serve(ledger, gateways)
    seen = _cost(
        f"a look around {gateways} gateways, every minute", lambda: around.look(RULES, Wrong({}, {}))
    )
    _complain(ledger, gateways)
    record = ledger.change("fleet-0-1")
    joined = _cost("the join of what people said", lambda: signals_about(ledger, record, gateways))
    return [
        _cost("the changes' rows alone, by sqlite3", lambda: _rows(path)),
        idle,
        told,
        begun,
        held,
        seen,
        joined,
    ]


def _rows(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute('SELECT change, "order", told, at FROM stories').fetchall()
        connection.execute("SELECT * FROM changes").fetchall()


def _cost(what: str, work: Callable[[], Any]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(what, time.perf_counter() - wall, time.process_time() - cpu)


def _tell(ledger: Ledger, changes: int, *, begun: bool = False, **more: Any) -> None:
    """Have every change tell something now, beginning first where they have not."""
    at = datetime.now(UTC)
    names = [f"gw-{number}" for number in range(OF_CHANGE)]
    gateways = {name: GatewayProgress(gateway=name, wave=1, state="on trial") for name in names}
    with writing(ledger.engine) as connection:
        for number in range(changes):
            fleet = f"fleet-{number}"
            order = ChangeOrder(fleet=fleet, kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE")
            said = {"phase": Phase.OBSERVING, "wave": 1, "gateways": gateways, "moved": True, **more}
            told = Told.model_validate({"name": f"{fleet}-1", **said}).model_dump_json()
            if not begun:
                mine = tables.stories.c.change == f"{fleet}-1"
                connection.execute(update(tables.stories).where(mine).values(told=told, at=at))
                continue
            change = {"name": f"{fleet}-1", "fleet": fleet, "number": 1, "key": fleet, "kind": "upgrade"}
            by = {"requested_by": "ana", "reason": "CVE", "release": "1.3.0", "began": at}
            connection.execute(insert(tables.changes).values(**change, **by))
            row = {"change": f"{fleet}-1", "order": order.model_dump_json(), "told": told, "at": at}
            connection.execute(insert(tables.stories).values(**row))


def _keep_old(ledger: Ledger) -> None:
    """Have three months of notices that are over, each delivered."""
    at = datetime.now(UTC) - timedelta(days=30)
    body = Notice(key="k", fleet="old", state="started", level=NoticeLevel.INFO, headline="it", at=at)
    notices = [
        {
            "key": f"old-{number}/started",
            "fleet": "old",
            "change": f"old-{number}",
            "subject": f"old-{number}",
            "state": "started",
            "level": "info",
            "body": body.model_dump_json(),
            "at": at,
            "seq": 0,
            "waits": False,
        }
        for number in range(KEPT)
    ]
    had = {"sink": "chat", "fleet": "old", "level": "info", "occasion": "said", "at": at, "delivered": at}
    with writing(ledger.engine) as connection:
        connection.execute(insert(tables.notices), notices)
        rows = [{"notice": one["key"], **had} for one in notices]
        connection.execute(insert(tables.notice_deliveries), rows)


def _serve(ledger: Ledger, gateways: int) -> None:
    """Have every gateway of one fleet serve its known-good."""
    at, good = datetime.now(UTC), "sha256:" + "a" * 64
    with writing(ledger.engine) as connection:
        names = [f"gw-{number}" for number in range(gateways)]
        known = {
            "fleet": "large",
            "change": "fleet-0-1",
            "release": json.dumps({"digest": good}),
            "since": at,
        }
        connection.execute(insert(tables.known_good), [{"gateway": name, **known} for name in names])
        seen = {"fleet": "large", "takes": good, "at": at}
        connection.execute(insert(tables.gateway_states), [{"gateway": name, **seen} for name in names])


def _complain(ledger: Ledger, gateways: int) -> None:
    """Have as much said of the first change as is ever taken."""
    now = datetime.now(UTC)
    with writing(ledger.engine) as connection:
        said = [
            {
                "fleet": "fleet-0",
                "user": f"{n:032x}",
                "gateway": f"gw-{n % gateways}",
                "at": now,
                "arrived": now,
            }
            for n in range(2 * MOST_COMPLAINTS)
        ]
        connection.execute(insert(tables.complaints), said)
        results = [
            {"change": "fleet-0-1", "gateway": f"gw-{n}", "wave": 1, "state": "on trial", "slot": "b"}
            for n in range(gateways)
        ]
        started = {"started": now.timestamp() - 60, "at": now, "sentence": "it is on trial"}
        connection.execute(insert(tables.gateway_results), [{**row, **started} for row in results])
        rows = []
        for number in range(MOST_KEPT):
            seconds = now.timestamp()
            ticket = Ticket(id=f"NOC-{number}", severity="page", text="calls", opened=seconds, at=seconds)
            row = {"fleet": "fleet-0", "id": ticket.id, "opened": now, "told_at": now, "arrived": now}
            rows.append({**row, "body": ticket.model_dump_json()})
        connection.execute(insert(tables.tickets), rows)
