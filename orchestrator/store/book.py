"""A book of the ledger: some of its tables with what may be asked of them and written to them.

Every write has a natural key, so a repeat after a lost answer changes nothing, and every
change stands in the audit record in the same transaction.
"""

from typing import Self

from sqlalchemy import Engine

from orchestrator.store.database import BUSY_MILLISECONDS, open_database


class Book:
    """Tables of one database; safe to use from several threads and processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """The database that it is in."""
        return self._engine

    @classmethod
    def open(cls, url: str, busy: int = BUSY_MILLISECONDS) -> Self:
        """Return the book in the ledger at this address, which gets the newest schema.

        Args:
            url: Where it is.
            busy: Milliseconds that one write waits for those who write already.

        Raises:
            BadInput: The address is not one, or a newer penstock wrote the ledger.
            Unavailable: The database cannot be reached now.
        """
        return cls(open_database(url, busy))

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()
