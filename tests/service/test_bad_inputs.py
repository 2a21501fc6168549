"""What people get wrong: every answer names the place and what to do, and nothing is wrongly accepted.

The list is that of the review of the first core's screens, which found 147 and nearly half of them
badly answered, and more beside it. What is wrong on the command line is in `test_cli.py`.
"""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from activities.drivers.rights import everybody_reads
from orchestrator.store.ledger import Ledger
from tests.patience import PATIENCE
from tests.service.bad_files import SOUND, TABLES
from tests.service.command_line import CommandLine
from tests.service.conftest import FLEETS
from tests.service.test_api import under_way

ALONE = {"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(Path.cwd()), "TZ": "UTC"}
FIVE_SECONDS = 5.0


@pytest.mark.parametrize("name", TABLES)
async def test_what_is_wrong_with_a_file_is_named_by_its_place(name: str, tmp_path: Path) -> None:
    wanted = {}
    for number, (content, place) in enumerate(TABLES[name]()):
        file = tmp_path / str(number) / name
        file.parent.mkdir()
        file.write_text(content)
        wanted[str(file)] = (place, content)
    said = await CommandLine(ALONE)("check", *wanted, "-o", "json")
    assert said.code == 2, said.err
    found = {one["file"]: one["wrong"] for one in json.loads(said.out)["data"]}
    assert set(found) == set(wanted)
    badly_answered = [
        f"{found[file] or 'ACCEPTED'}\n  lacks {place!r} for:\n{content}"
        for file, (place, content) in wanted.items()
        if place not in (found[file] or "") or file not in (found[file] or "")
    ]
    assert not badly_answered, "\n\n".join(badly_answered)


@pytest.mark.parametrize("name", ["fleet.yaml", "gates.yaml", "people.yaml"])
async def test_the_file_of_which_all_others_are_bad_copies_is_sound(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(SOUND[name])
    said = await CommandLine(ALONE)("check", str(tmp_path / name))
    assert said.code == 0, said.out


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("settings", "environment", "place"),
    [
        ("temporal_adress = '127.0.0.1:7233'\n", {}, "temporal_adress"),
        ("temporal_address = 7233\n", {}, "temporal_address"),
        ("temporal_address = '127.0.0.1:7233\n", {}, "no TOML"),
        ("gates = ['a', 'b']\n", {}, "gates"),
        ("", {"PENSTOCK_TEMPORAL_ADDRESS": "127.0.0.1"}, "127.0.0.1"),
        ("", {"PENSTOCK_TEMPORAL_ADDRESS": "127.0.0.1:port"}, "127.0.0.1:port"),
        ("", {"PENSTOCK_TEMPORAL_ADDRESS": "127.0.0.1:99999"}, "99999"),
        ("", {"PENSTOCK_LEDGER_URL": "nonsense"}, "nonsense"),
        ("", {"PENSTOCK_PROMETHEUS_URL": "prometheus"}, "prometheus"),
        ("", {"PENSTOCK_API_ADDRESS": "0.0.0.0"}, "0.0.0.0"),
        ("", {"PENSTOCK_METRICS_TOKNE": "/t"}, "did you mean PENSTOCK_METRICS_TOKEN?"),
        ("", {"PENSTOK_FLEET": "/f"}, "did you mean PENSTOCK_FLEET?"),
        ("", {"PENSTOCK_9": "x"}, "take it out"),
    ],
)
@pytest.mark.parametrize("process", ["serve", "api", "worker"])
async def test_a_process_with_wrong_settings_ends_at_once_and_names_them(
    process: str, settings: str, environment: dict[str, str], place: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "penstock.toml").write_text(settings)
    (tmp_path / "fleet.yaml").write_text(FLEETS.format(name="edge"))
    given = {"PENSTOCK_STATE": str(state), "PENSTOCK_FLEET": str(tmp_path / "fleet.yaml")} | environment
    said = await CommandLine(ALONE | given)(process)
    assert (said.code, place in said.err) == (2, True), said.err
    assert not list(state.glob("*.db"))


@pytest.fixture
def open_to_everybody() -> Iterator[Path]:
    """A folder that every user of this host may enter, with settings that have a password."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file = Path(folder) / "penstock.toml"
        file.write_text('ledger_url = "postgresql+psycopg://penstock:hunter2@db.example/penstock"\n')
        file.chmod(0o644)
        yield Path(folder)


@pytest.mark.parametrize("words", [("serve",), ("api",), ("worker",), ("check", "-o", "json")])
async def test_settings_with_a_password_that_everybody_may_read_are_refused(
    words: tuple[str, ...], open_to_everybody: Path
) -> None:
    said = await CommandLine(ALONE | {"PENSTOCK_STATE": str(open_to_everybody)})(*words)
    file = open_to_everybody / "penstock.toml"
    assert said.code == 2, said.err
    why = f"{file} has a password in ledger_url, and everybody may read it; chmod o-r {file}"
    assert why in said.err + said.out
    assert "hunter2" not in said.err + said.out


def test_who_may_not_enter_a_folder_or_read_a_file_there_reads_no_password(open_to_everybody: Path) -> None:
    file = open_to_everybody / "penstock.toml"
    assert everybody_reads(file)
    file.chmod(0o640)
    assert not everybody_reads(file)
    file.chmod(0o644)
    open_to_everybody.chmod(0o750)
    assert not everybody_reads(file)


@pytest.mark.parametrize("content", [b"this is no database", b"SQLite format 3\x00" + b"\xff" * 4096])
async def test_a_corrupt_ledger_is_named_and_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    ledger.write_bytes(content)
    given = {"PENSTOCK_STATE": str(tmp_path), "PENSTOCK_LEDGER_URL": f"sqlite:///{ledger}"}
    said = await CommandLine(ALONE | given)("ledger", "backup", str(tmp_path / "backup.jsonl"))
    assert said.code in {1, 2}
    assert str(ledger) in said.err
    assert ledger.read_bytes() == content


async def test_a_ledger_that_is_no_penstocks_is_left_alone(tmp_path: Path) -> None:
    ledger = tmp_path / "other.db"
    with sqlite3.connect(ledger) as other:
        other.execute("CREATE TABLE changes (name TEXT)")
    given = {"PENSTOCK_STATE": str(tmp_path), "PENSTOCK_LEDGER_URL": f"sqlite:///{ledger}"}
    said = await CommandLine(ALONE | given)("ledger", "backup", str(tmp_path / "backup.jsonl"))
    assert said.code in {1, 2}
    assert str(ledger) in said.err
    with sqlite3.connect(ledger) as other:
        assert [row[0] for row in other.execute("SELECT name FROM sqlite_master")] == ["changes"]


@pytest.mark.sweep
async def test_an_api_that_is_stopped_is_said_to_be_silent_within_five_seconds(tmp_path: Path) -> None:
    place = str(tmp_path / "silent.sock")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(place)
        silent.listen()
        silent.setblocking(False)
        asking = asyncio.create_task(CommandLine(ALONE | {"PENSTOCK_SOCKET": place})("status", "edge"))
        asked, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(silent), PATIENCE)
        with asked:  # nobody answers it
            began = time.monotonic()
            said = await asking
            took = time.monotonic() - began
    assert (said.code, "did not answer in time" in said.err) == (1, True)
    assert took < FIVE_SECONDS + 2


@pytest.mark.parametrize("after", [0.05, 0.1, 0.2, 0.4, 0.8])
async def test_ctrl_c_at_any_moment_of_a_command_says_no_traceback_of_it(
    penstock: CommandLine, ledger: Ledger, after: float
) -> None:
    under_way(ledger)
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "orchestrator", "watch", "edge"],
        env=penstock.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    await asyncio.sleep(after)
    process.send_signal(signal.SIGINT)
    said = asyncio.create_task(process.communicate())
    if not (await asyncio.wait([said], timeout=10))[0]:
        process.send_signal(signal.SIGINT)  # an interpreter that is about to start can swallow one
    async with asyncio.timeout(PATIENCE):
        _, err = await said
    assert b"/orchestrator/cli" not in err, (
        err.decode()
    )  # before it, the interpreter itself says what it likes
    assert process.returncode in {130, -signal.SIGINT, 1}


@pytest.mark.parametrize("kind", ["fleets", "folder", "unreadable", "loop", "binary"])
async def test_a_file_that_is_none_is_named(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "fleet.yaml"
    match kind:
        case "fleets":
            place.mkdir()
        case "folder":
            place.mkdir()
            (place / "fleet.yaml").mkdir()
        case "unreadable":
            place = tmp_path / "nothing" / "fleet.yaml"
        case "loop":
            place.symlink_to(place)
        case _:
            place.write_bytes(b"\x00\xff\xfe")
    said = await CommandLine(ALONE)("check", str(place), "-o", "json")
    assert said.code == 2
    assert place.name in said.out + said.err
