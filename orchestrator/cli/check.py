"""The command that reads every file of an installation, offline: what is wrong, where, and what to do."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import Output, OutputOption, emit, print_table
from orchestrator.exit_code import ExitCode
from policies.model.errors import BadInput, PenstockError

if TYPE_CHECKING:
    from orchestrator.settings import Settings
    from policies.model.value import Value

Given = Annotated[
    list[Path] | None,
    typer.Argument(
        help="files to read, by their names fleet, upgrade, gates, trust, people, notices, site, chat, "
        "agent, cluster; all of the settings when none"
    ),
]

BY_A_LINE = {
    b"kind: Upgrade": "upgrade",
    b"repository:": "cluster",
    b"temporal_address:": "agent",
    b"people:": "people",
    b"sinks:": "notices",
    b"matrix:": "chat",
    b"slack:": "chat",
}
"""What no other kind of file has at the beginning of a line, and which kind has it.

The first that is there counts: cluster.yaml has the way to the engine, as agent.yaml has.
"""


def check(files: Given = None, output: OutputOption = Output.TABLE) -> None:
    """Read every file, change nothing, and say what is wrong in which line; ends with 2 when anything is."""
    found = list[dict[str, str | None]]()
    for path, read in _readings(files or []):
        wrong = _wrong(read)  # also before another user reads it, whom this environment may be closed to
        with _as_its_reader(path) as switched:
            found.append({"file": str(path), "wrong": _wrong(read) if switched else wrong})

    def table() -> None:
        rows = [(one["file"] or "", "WRONG" if one["wrong"] else "ok", one["wrong"] or "") for one in found]
        print_table(("FILE", "", ""), rows, "There is nothing to read.")

    bad = [one["file"] or "" for one in found if one["wrong"]]
    emit(output, "Check", found, table, rows=found, names=bad)
    raise typer.Exit(ExitCode.USAGE if bad else ExitCode.DONE)


def _readings(files: list[Path]) -> Iterator[tuple[Path, Callable[[], object]]]:
    """Yield what is to be read, each with the reading of it."""
    if files:
        for path in files:
            yield path, _reading_of(path)
        return
    settings, wrong = _settings()
    toml = _toml()
    if wrong is not None or toml.exists():
        yield toml, lambda: _raise(wrong)
    if settings is None:
        return
    if (shown := _shown_to_prometheus(settings)) is not None:
        yield shown, _metrics_reader(settings)
    for path in _fleets_of(settings):
        yield path, _installed_fleet_reader(settings, path)
    yield settings.gates, _reader("gates", settings.gates)
    yield settings.trust, _reader("trust", settings.trust)
    if settings.people.exists():
        yield settings.people, _reader("people", settings.people)
    if settings.notices is not None:
        yield settings.notices, _sinks_reader(settings.notices)
    if settings.site is not None:
        yield settings.site, _reader("site", settings.site)


@contextmanager
def _as_its_reader(path: Path) -> Iterator[bool]:
    """Be the worker's user where root checks a file that it reads; yield whether that is so.

    Owners and modes are right or wrong for that process: what root may read says nothing of it.
    """
    from orchestrator.settings import state_folder  # noqa: PLC0415 - only who checks waits for it

    settings, _ = _settings()
    theirs = [settings.gates, settings.trust, settings.people, settings.notices] if settings else []
    theirs += _fleets_of(settings) if settings else []
    folder = state_folder()
    if (
        os.geteuid() != 0
        or not folder.is_dir()
        or path.absolute() not in [one.absolute() for one in theirs if one is not None]
    ):
        yield False
        return
    owner = folder.stat()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield True
    finally:
        os.seteuid(0)
        os.setegid(0)


def _fleets_of(settings: "Settings") -> list[Path]:
    return sorted(settings.fleet.glob("*.yaml")) if settings.fleet.is_dir() else [settings.fleet]


def _installed_fleet_reader(settings: "Settings", path: Path) -> Callable[[], object]:
    """Return the reading of a fleet that the worker reads, whose rights count, too: a checkout's do not."""

    def read() -> object:
        from activities.drivers.rights import require_own  # noqa: PLC0415 - only who checks waits for it

        require_own(path, of=settings.fleet_owner_number)
        return _fleet_with_calendars(path)

    return read


def _reading_of(path: Path) -> Callable[[], object]:
    """Return how a file is read that was named."""
    return _reader(kind_of(path), path)


def kind_of(path: Path) -> str:
    """Return what a file is: by a line that no other kind has, else by its name; else it is a fleet's."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        lines = []  # whoever reads it says what is wrong
    for begin, kind in BY_A_LINE.items():
        if any(line.startswith(begin) for line in lines):
            return kind
    named = next(
        (
            kind
            for kind in ("gates", "trust", "people", "agent", "cluster", "upgrade", "notices", "chat", "site")
            if kind in path.stem
        ),
        None,
    )
    if named is not None:
        return named
    return "fleet"


def _reader(kind: str, path: Path) -> Callable[[], object]:
    def read() -> object:
        from activities.drivers.trust_files import check_trust  # noqa: PLC0415 - only who checks waits for it
        from activities.files import load, load_gates, load_own  # noqa: PLC0415

        match kind:
            case "trust":
                return check_trust(path)
            case "chat":
                from orchestrator.chat.file import read as read_chat  # noqa: PLC0415 - no agent's host has it

                return read_chat(path)
            case "gates":
                return load_gates(path)
            case "people" | "agent" | "cluster" | "notices":
                return load_own(path, _model_of(kind))
            case "fleet":
                return _fleet_with_calendars(path)
            case _:
                pass
        return load(path, _model_of(kind))

    return read


def _fleet_with_calendars(path: Path) -> object:
    """Read a fleet's file with the settings that it gives to daemons, and the calendars that it names."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from activities.calendars import ReadCalendars  # noqa: PLC0415 - no agent's host reads calendars
    from activities.drivers.daemon.ocserv.settings import refused_settings  # noqa: PLC0415
    from activities.files import line_at, load  # noqa: PLC0415
    from policies.model.fleet import Fleet  # noqa: PLC0415
    from policies.model.windows import CalendarFile  # noqa: PLC0415

    fleet, calendars = load(path, Fleet), ReadCalendars()
    if refused := next(refused_settings(fleet), None):
        place, why = refused
        raise BadInput(f"{path}, line {line_at(path, place)}: {why}")
    for freeze in fleet.freezes:
        if isinstance(freeze.source, CalendarFile):
            calendars.spans(path.parent / freeze.source.path, freeze, datetime.now(UTC))
    return fleet


def _sinks_reader(path: Path) -> Callable[[], object]:
    """Return the reading of an installation's notices and of every file that its sinks need."""

    def read() -> object:
        from orchestrator.noticing.rules import RulesFile  # noqa: PLC0415 - no agent's host tells notices

        _reader("notices", path)()
        unready = RulesFile(path).unready()
        if unready:
            said = "; ".join(f"sink {name}: {wrong}" for name, wrong in unready.items())
            raise BadInput(f"{path}: {said}")
        return None

    return read


def _shown_to_prometheus(settings: "Settings") -> Path | None:
    """Return the file by which a row calls what Prometheus is shown; None where nothing is."""
    files = (
        settings.prometheus_token,
        settings.prometheus_authority,
        settings.prometheus_certificate,
        settings.prometheus_key,
        _toml() if settings.prometheus_headers else None,
    )
    return next((path for path in files if path is not None), None)


def _metrics_reader(settings: "Settings") -> Callable[[], object]:
    """Return the reading of every file by which the installation reaches Prometheus."""

    def read() -> None:
        from orchestrator.prometheus import access_of  # noqa: PLC0415 - only who checks waits for it

        access_of(settings).require_sound()

    return read


def _model_of(kind: str) -> "type[Value]":
    from orchestrator.processes.agent_file import AgentSettings  # noqa: PLC0415
    from orchestrator.processes.cluster_file import ClusterSettings  # noqa: PLC0415
    from policies.model.desired import Upgrade  # noqa: PLC0415
    from policies.model.fleet import Fleet  # noqa: PLC0415
    from policies.model.notice_rules import NoticeRules  # noqa: PLC0415
    from policies.model.people import People  # noqa: PLC0415
    from policies.model.site import Site  # noqa: PLC0415

    models: dict[str, type[Value]] = {
        "agent": AgentSettings,
        "cluster": ClusterSettings,
        "notices": NoticeRules,
        "people": People,
        "site": Site,
        "upgrade": Upgrade,
    }
    return models.get(kind, Fleet)


def _settings() -> "tuple[Settings | None, Exception | None]":
    """Return the settings, or why they cannot be read."""
    from orchestrator.settings import read_settings  # noqa: PLC0415 - only who checks waits for it

    try:
        return read_settings(), None
    except BadInput as error:
        return None, error


def _toml() -> Path:
    from orchestrator.settings import Settings  # noqa: PLC0415 - only who checks waits for it

    return Settings.file


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error


def _wrong(read: Callable[[], object]) -> str | None:
    """Return what is wrong with a file, None when nothing is."""
    from policies.model.value import sentence  # noqa: PLC0415 - only who checks waits for it

    try:
        read()
    except (PenstockError, ValueError) as error:
        return sentence(str(error))
    return None
