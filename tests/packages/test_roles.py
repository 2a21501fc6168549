"""The ledger's roles as docs/packages.md has an administrator make them, on a real PostgreSQL."""

import re
from pathlib import Path

from sqlalchemy import create_engine, text

from orchestrator.store.ledger import Ledger
from tests.fakes.postgresql import OWNER, PostgreSQL

DOCUMENT = (Path(__file__).parents[2] / "docs/packages.md").read_text()


def test_worker_api_and_relay_share_a_ledger_by_roles_of_their_own_whichever_made_it() -> None:
    """S5: tables that one role makes belong to all, or the next process could not even read them."""
    (typed,) = re.findall(r"psql <<'END'\n(.+?)^ *END$", DOCUMENT, re.MULTILINE | re.DOTALL)
    roles = re.findall(r'create role "(penstock-\w+)"', typed)
    assert roles == ["penstock-worker", "penstock-api", "penstock-relay"]
    with PostgreSQL() as server:
        administrator = create_engine(server.url(), isolation_level="AUTOCOMMIT")
        with administrator.connect() as connection:
            for command in filter(str.strip, typed.split(";")):
                connection.execute(text(command))
        administrator.dispose()
        address = server.url("penstock")
        ledgers = [Ledger.open(address.replace(f"//{OWNER}@", f"//{role}@")) for role in roles]
        for role, ledger in zip(roles, ledgers, strict=True):
            ledger.audit(role, "cli", "looked", "edge", {})
        assert [one.person for one in ledgers[0].audit_entries()] == roles
        assert ledgers[0].verify_audit() is None
        for ledger in ledgers:
            ledger.close()
