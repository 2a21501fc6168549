"""What gateways' hosts have recorded by themselves, as entries of the audit record."""

import json
from collections.abc import Collection, Sequence

from sqlalchemy import Connection, delete, insert, select

from activities.host_record import Collected
from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.people import Via
from policies.model.value import sentence


class HostRecords(Book):
    """How much of each host's own record has been collected."""

    def collected(self, fleet: str, gateways: Collection[str]) -> dict[str, Collected]:
        """Return how much of each host's record is here; those of which nothing is are left out."""
        with reading(self._engine) as connection:
            return _collected(connection, fleet, gateways)

    def keep_host_lines(
        self, fleet: str, gateway: str, lines: Sequence[str], before: Collected, now: Collected
    ) -> None:
        """Write lines of a host into the audit record, each once, and how much there is now.

        Nothing is written when there is something else now than there was before: others collected
        them meanwhile, or the host was set up anew.
        """
        subject = f"{fleet}/{gateway}"
        with writing(self._engine) as connection:
            if _collected(connection, fleet, [gateway]).get(gateway, Collected()) != before:
                return
            for line in lines:
                entry = json.loads(line)["entry"]
                key = f"host {now.public_key} {entry['number']}"
                action = f"on the host: {sentence(entry['action'])}"
                who = f"{gateway}: {sentence(entry['person'])}"
                append(connection, who, Via.HOST, action, subject, {"line": line}, key, fleet=fleet)
            _keep(connection, fleet, gateway, now)

    def note_host_fault(
        self, fleet: str, gateway: str, fault: str, before: Collected, now: Collected
    ) -> Collected:
        """Write into the audit record, once, that a host's own record is not whole; return how much is here.

        Nothing is written when it was, or when there is something else now than there was before.
        """
        said, subject = {"fault": fault}, f"{fleet}/{gateway}"
        key, action = f"host fault {subject} {fault}", "host record broken"
        with writing(self._engine) as connection:
            if _collected(connection, fleet, [gateway]).get(gateway, Collected()) != before:
                return before
            if not append(connection, "penstock", Via.SYSTEM, action, subject, said, key, fleet=fleet):
                return before
            _keep(connection, fleet, gateway, now)
            return now


def _keep(connection: Connection, fleet: str, gateway: str, now: Collected) -> None:
    table = tables.host_records
    connection.execute(delete(table).where(table.c.fleet == fleet, table.c.gateway == gateway))
    connection.execute(insert(table).values(fleet=fleet, gateway=gateway, **now.model_dump()))


def _collected(connection: Connection, fleet: str, gateways: Collection[str]) -> dict[str, Collected]:
    table = tables.host_records
    wanted = select(table).where(table.c.fleet == fleet, table.c.gateway.in_(sorted(gateways)))
    return {
        row.gateway: Collected(**{field: getattr(row, field) for field in Collected.model_fields})
        for row in connection.execute(wanted)
    }


def forget_host(connection: Connection, fleet: str, gateway: str) -> None:
    """Take the next line of this host as the first of a new record: the host was set up anew."""
    table = tables.host_records
    connection.execute(delete(table).where(table.c.fleet == fleet, table.c.gateway == gateway))
