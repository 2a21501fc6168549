"""Drills: what was seen whenever somebody rehearsed a failure."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, case, func, insert, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.drill import DrillOutcome, DrillPast, DrillPoint, DrillReport, DrillRun
from policies.model.errors import Conflict
from policies.model.people import Via


class Drills(Book):
    """Every run of every drill; one is known by its drill, its place and when it began."""

    def record_drill(self, report: DrillReport, person: str) -> DrillRun:
        """Write down what was seen; return it, or what was written down of this run before.

        Raises:
            Conflict: Something else was written down of the run that began there then.
        """
        table = tables.drills
        which = (
            table.c.name == report.name,
            table.c.place == report.place,
            table.c.began == report.began,
        )
        with writing(self._engine) as connection:
            known = connection.execute(select(table).where(*which)).one_or_none()
            if known is not None:
                run = _run(known)
                if run.report != report:
                    raise Conflict(
                        f"{run.person} has recorded another result of {report.name} in {report.place} that "
                        f"began at {report.began.isoformat()}; a record stays as it is"
                    )
                return run
            run = DrillRun(
                report=report,
                outcome=report.outcome,
                seconds=report.seconds,
                person=person,
                recorded=datetime.now(UTC),
            )
            row = {
                "name": report.name,
                "place": report.place,
                "began": report.began,
                "outcome": run.outcome.value,
                "seconds": run.seconds,
                "budget": report.budget,
                "report": report.model_dump_json(),
                "person": person,
                "recorded": run.recorded,
            }
            connection.execute(insert(table).values(row))
            body = {
                "place": report.place,
                "began": report.began.isoformat(),
                "outcome": run.outcome.value,
                "seconds": run.seconds,
                "budget": report.budget,
            }
            append(connection, person, Via.SYSTEM, "drill recorded", report.name, body)
        return run

    def drill_runs(self, name: str | None, limit: int) -> tuple[DrillRun, ...]:
        """Return the newest runs, of one drill or of all, the newest first."""
        table = tables.drills
        wanted = select(table).order_by(table.c.began.desc(), table.c.name, table.c.place).limit(limit)
        if name is not None:
            wanted = wanted.where(table.c.name == name)
        with reading(self._engine) as connection:
            return tuple(_run(row) for row in connection.execute(wanted))

    def drills_at(self, places: Collection[str]) -> Mapping[tuple[str, str], datetime]:
        """Return when each drill last began in each of these places, by drill and place."""
        table = tables.drills
        wanted = (
            select(table.c.name, table.c.place, func.max(table.c.began).label("last"))
            .where(table.c.place.in_(places))
            .group_by(table.c.name, table.c.place)
        )
        with reading(self._engine) as connection:
            return {(row.name, row.place): row.last for row in connection.execute(wanted)}

    def drill_pasts(self, most: int) -> Mapping[str, DrillPast]:
        """Return of each drill that was rehearsed its last run, so many before it, and how many there are.

        Of the last run the steps are read, too: those of all others would be megabytes.
        """
        table = tables.drills
        newest = func.row_number().over(
            partition_by=table.c.name, order_by=(table.c.began.desc(), table.c.place)
        )
        numbered = select(
            *(column for column in table.c if column is not table.c.report),
            case((newest == 1, table.c.report)).label("report"),
            newest.label("place_in_time"),
            func.count().over(partition_by=table.c.name).label("runs"),
        ).subquery()
        wanted = (
            select(numbered)
            .where(numbered.c.place_in_time <= most)
            .order_by(numbered.c.name, numbered.c.place_in_time)
        )
        found: dict[str, list[Row[Any]]] = {}
        with reading(self._engine) as connection:
            for row in connection.execute(wanted):
                found.setdefault(row.name, []).append(row)
        return {
            name: DrillPast(last=_run(rows[0]), points=tuple(_point(row) for row in rows), count=rows[0].runs)
            for name, rows in found.items()
        }


def _run(row: "Row[Any]") -> DrillRun:
    return DrillRun(
        report=DrillReport.model_validate_json(row.report),
        outcome=DrillOutcome(row.outcome),
        seconds=row.seconds,
        person=row.person,
        recorded=row.recorded,
    )


def _point(row: "Row[Any]") -> DrillPoint:
    return DrillPoint(**{field: getattr(row, field) for field in DrillPoint.model_fields})
