"""The ledger's database: opened, brought to the newest schema, written by one at a time.

SQLite's own default lets two writers begin and one of them fail late; every write here begins with the
write lock instead (2,000 of 2,000 appends kept by four processes, 596 without). PostgreSQL takes an
advisory lock for the same promise: what a write has looked up stays true until it is kept.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from policies.model.errors import BadInput, Unavailable

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_MILLISECONDS = 10_000
POOL_SECONDS = 5
"""How long somebody waits for a connection while all of them are in use."""


_READS = "penstock_reads"
_UNDEFINED_TABLE = "42P01"
"""What PostgreSQL answers of a table that is not there; SQLite calls it an operational error."""

_PLACE = "penstock_place"
_BROKEN = ("SQLITE_NOTADB", "SQLITE_CORRUPT")

_WRITER = 0x70656E73
"""Any number that no other program in the same PostgreSQL database uses for its advisory locks."""


def open_database(url: str, busy: int = BUSY_MILLISECONDS) -> Engine:
    """Return the database with the newest schema; one that has it already is opened whoever writes to it.

    Args:
        url: Where it is.
        busy: Milliseconds that one write waits for those who write already.

    Raises:
        BadInput: The address is not one, or a newer penstock wrote this ledger.
        Unavailable: The database cannot be reached now.
    """
    engine = _engine(url, busy)
    if (file := file_of(url)) is not None:
        file.absolute().parent.mkdir(parents=True, exist_ok=True)
    return _of_newest_schema(engine)


def open_existing(url: str, busy: int = BUSY_MILLISECONDS) -> Engine:
    """Return the database of a ledger that was made before, as `open_database` does.

    Raises:
        BadInput: There is no ledger at that address, and none was made; or as of `open_database`.
        Unavailable: The database cannot be reached now.
    """
    engine, file = _engine(url, busy), file_of(url)
    place = file or repr(engine.url)
    missing = BadInput(
        f"there is no ledger at {place}. Set PENSTOCK_LEDGER_URL to the ledger; restore a lost one: penstock "
        "runbook show ledger-restore"
    )
    if file is not None and not file.exists():
        raise missing
    with reading(engine) as connection:
        if not MigrationContext.configure(connection).get_current_heads():
            raise missing
    return _of_newest_schema(engine)


def file_of(url: str) -> Path | None:
    """Return the file of an SQLite database; None for another kind of database.

    Raises:
        BadInput: The address is not one.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise _no_address(url, error) from error
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None


def _engine(url: str, busy: int) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
            raise BadInput("a ledger in memory is forgotten with its process; give a file")
        arguments = _postgresql(busy) if parsed.get_backend_name() == "postgresql" else {}
        engine = create_engine(parsed, pool_pre_ping=True, pool_timeout=POOL_SECONDS, connect_args=arguments)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise _no_address(url, error) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", partial(_set_up_sqlite, busy))
        event.listen(engine, "begin", _begin_sqlite)
        event.listen(engine, "checkout", _refuse_another_file)
    return engine


def _no_address(url: str, error: Exception) -> BadInput:
    return BadInput(f"{url!r} is no address of a ledger, such as sqlite:////path/ledger.db: {error}")


def _of_newest_schema(engine: Engine) -> Engine:
    if not _is_newest(engine):
        with writing(engine) as connection:
            _upgrade(connection)
    return engine


def _postgresql(busy: int) -> dict[str, int | str]:
    """Return how to connect: one writer that hangs, or a server that has gone, delays others for a while."""
    return {
        "connect_timeout": 5,
        "tcp_user_timeout": 10_000,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "options": (
            f"-c lock_timeout={busy} -c statement_timeout=60000 -c idle_in_transaction_session_timeout=60000"
        ),
    }


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a transaction that may write, kept if nothing is raised."""
    with _reachable(engine), engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _WRITER})
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Give a connection that sees one moment of the ledger and never waits for a writer."""
    with _reachable(engine), engine.connect() as connection:
        yield connection.execution_options(**{_READS: True})


def _is_newest(engine: Engine) -> bool:
    """Whether nothing is left to do; no writer is waited for, so that one that hangs stops nobody's start."""
    with reading(engine) as connection:
        return frozenset(MigrationContext.configure(connection).get_current_heads()) == _newest()


@cache
def _newest() -> frozenset[str]:
    """Return the revisions that the newest schema has; to read all migrations takes 17 ms."""
    return frozenset(ScriptDirectory.from_config(_config()).get_heads())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise BadInput(f"the ledger was written by a newer penstock; use that one ({error})") from error


@contextmanager
def _reachable(engine: Engine) -> Iterator[None]:
    try:
        yield
    except PoolTimeoutError as error:
        raise Unavailable(f"the ledger {engine.url!r} does not answer those who asked before") from error
    except DBAPIError as error:
        gone = getattr(error.orig, "sqlstate", None) == _UNDEFINED_TABLE
        if gone or isinstance(error, OperationalError | InterfaceError):
            raise Unavailable(f"the ledger {engine.url!r} does not answer: {error.orig}") from error
        if getattr(error.orig, "sqlite_errorname", "").startswith(_BROKEN):
            sentence = (
                f"{engine.url.database} is no ledger, or a broken one ({error.orig}); it was left as it is"
            )
            raise BadInput(f"{sentence}: move it away and restore a backup") from error
        if isinstance(error, DataError):
            raise BadInput(f"the ledger cannot keep what was written: {error.orig}") from error
        raise


def _set_up_sqlite(busy: int, connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # sqlite3 then leaves BEGIN to us
    cursor = connection.cursor()
    path = str(cursor.execute("PRAGMA database_list").fetchone()[2])
    record.info[_PLACE] = (path, _which(path))
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={busy}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _refuse_another_file(
    _connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
) -> None:
    """Let go of a connection whose file was moved away or replaced: what it wrote, nobody would find."""
    place = record.info.get(_PLACE)
    if place is not None and _which(place[0]) != place[1]:
        raise DisconnectionError("the ledger's file is another one now")


def _which(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _begin_sqlite(connection: Connection) -> None:
    deferred = connection.get_execution_options().get(_READS, False)
    connection.exec_driver_sql("BEGIN" if deferred else "BEGIN IMMEDIATE")
