"""Chat: what docs/chat.md has people type connects a chat, typed here as it stands there.

What is the machine's own stands elsewhere: folders, and what an editor is told. Matrix is the fake homeserver
here and a real one in test_chat_matrix.
"""

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store.ledger import Ledger
from tests.fakes import slack as faked_slack
from tests.fakes.homeserver import NAME, ROOM, homeserver
from tests.patience import until
from tests.service.chat_rooms import PEOPLE
from tests.service.test_chat import ledger
from tests.service.test_safe_direction import Night, night
from tests.workflows.conftest import engines, server  # noqa: F401 - fixtures

__all__ = ["ledger", "night"]

ROOT = Path(__file__).parents[2]
Edits = Mapping[str, Sequence[tuple[str, str]]]

EDITOR = """
import json, pathlib, sys
edits = json.load(open(sys.argv[1]))
for name in sys.argv[2:]:
    file = pathlib.Path(name)
    text = file.read_text()
    for old, new in edits[name]:
        assert old in text, (old, text)
        text = text.replace(old, new, 1)
    file.write_text(text)
"""


def commands(heading: str) -> list[str]:
    """Return what the document has people type to connect this chat."""
    part = (ROOT / "docs" / "chat.md").read_text().partition(f"## {heading}\n")[2]
    return part.partition("```sh\n")[2].partition("\n```")[0].splitlines()


class Host:
    """A machine whose own folders are elsewhere, and whose commands are those of this tree."""

    def __init__(self, folder: Path, edits: Edits) -> None:
        """Have one in the folder of an installation whose API answers there."""
        self.folder = folder
        self.etc = folder / "etc"
        self.etc.mkdir()
        (self.etc / "fleet.yaml").symlink_to(folder / "fleets" / "edge.yaml")
        (folder / "people.yaml").write_text(PEOPLE)
        (folder / "people.yaml").chmod(0o600)
        programs = folder / "bin"
        programs.mkdir()
        (folder / "edits.json").write_text(json.dumps(edits))
        (folder / "editor.py").write_text(EDITOR)
        python = shlex.quote(sys.executable)
        self._program("pip", f"exec {python} -c 'import nio, slack_bolt'")  # they are there already
        self._program("penstock", f'exec {python} -m orchestrator "$@"')
        self._program("editor", f'exec {python} {self.folder}/editor.py {self.folder}/edits.json "$@"')
        self._env = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": os.fspath(ROOT),
            "PENSTOCK_SOCKET": os.fspath(folder / "penstock.sock"),
            "TZ": "UTC",
        }
        self._at = self.etc

    def _program(self, name: str, does: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{does}\n")
        path.chmod(0o755)

    async def begin(self, line: str, typed: str = "") -> asyncio.subprocess.Process:
        """Type a line, with what is pasted after it."""
        here = line.replace("/etc/penstock", os.fspath(self.etc))
        here = here.replace("/usr/share/doc/penstock/", f"{ROOT}/")
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euc", f"cd {shlex.quote(os.fspath(self._at))}; exec 2>&1; {here}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._env,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(typed.encode())
        process.stdin.close()
        return process

    async def type(self, line: str, typed: str) -> None:
        """Type a line and see it succeed."""
        if line.startswith("cd "):
            assert line == "cd /etc/penstock"
            return
        process = await self.begin(line, typed)
        said, _ = await process.communicate()
        assert process.returncode == 0, (line, said.decode())

    @asynccontextmanager
    async def connected(self, heading: str, secrets: Mapping[str, str]) -> AsyncIterator[None]:
        """Type all lines; the last one goes on until the end of the block."""
        lines = commands(heading)
        assert 5 <= len(lines) <= 10, lines
        for line in lines[:-1]:
            pasted = next((said for name, said in secrets.items() if f"cat > chat/{name}" in line), "")
            await self.type(line, pasted)
        assert lines[-1] == "penstock chat run chat.yaml"
        process = await self.begin(lines[-1])
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def fleet_edit(workspace: str, room: str) -> list[tuple[str, str]]:
    said = f"chat:\n  channels: [{{workspace: {workspace}, channel: '{room}'}}]\n"
    return [("name: edge\n", f"name: edge\n{said}")]


def matrix_edit(folder: Path, url: str, room: str) -> list[tuple[str, str]]:
    return [
        ("/run/penstock/penstock.sock", os.fspath(folder / "penstock.sock")),
        ("/var/lib/penstock-chat/chat", os.fspath(folder / "state")),
        ("https://chat.example.org", url),
        ('"!ops:chat.example.org"', f'"{room}"'),
    ]


async def test_matrix_is_connected_by_what_the_document_has_people_type(night: Night, ledger: Ledger) -> None:
    async with homeserver() as fake:
        chat = matrix_edit(night.folder, fake.url, ROOM)
        host = Host(night.folder, {"chat.yaml": chat, "fleet.yaml": fleet_edit(NAME, ROOM)})
        async with host.connected("Connect Matrix", {"matrix.token": "syt_fake_0123456789\n"}):
            await until(lambda: any(text.startswith("edge-1: ") for text in fake.texts))
            fake.say("ana", "!penstock link")
            await until(lambda: any("/chat/link/" in text for text in fake.texts))


async def test_slack_is_connected_by_what_the_document_has_people_type(night: Night, ledger: Ledger) -> None:
    async with faked_slack.slack() as fake:
        file = (ROOT / "deploy/examples/chat.yaml").read_text()
        matrix = file[file.index("matrix:") : file.index("# slack:")]
        slack = file[file.index("# slack:") :]
        kept: Callable[[str], bool] = lambda line: "signing_secret" not in line and "listen" not in line  # noqa: E731
        shown = "\n".join(line.removeprefix("# ") for line in slack.splitlines() if kept(line))
        shown = shown.replace("# api: https://slack.com/api/", "").replace("T0123ABC", faked_slack.TEAM)
        chat = [
            ("/run/penstock/penstock.sock", os.fspath(night.folder / "penstock.sock")),
            ("/var/lib/penstock-chat/chat", os.fspath(night.folder / "state")),
            (matrix, ""),
            (slack, shown.replace("https://slack.com/api/", f"{fake.url}/api/") + "\n"),
        ]
        edits: dict[str, Any] = {
            "chat.yaml": chat,
            "fleet.yaml": fleet_edit(faked_slack.TEAM, faked_slack.CHANNEL),
        }
        host = Host(night.folder, edits)
        secrets = {"slack-bot.token": "xoxb-fake-0123456789\n", "slack-app.token": "xapp-fake-0123456789\n"}
        async with host.connected("Connect Slack", secrets):
            await until(lambda: any(text.startswith("edge-1: ") for text in fake.texts))
            await until(lambda: bool(fake.sockets))
            await fake.envelope("slash_commands", faked_slack.ordered("U0ANA", "link"))
            await until(lambda: any("/chat/link/" in str(one) for one in fake.private))


@pytest.mark.parametrize("heading", ["Connect Matrix", "Connect Slack"])
def test_ten_commands_are_enough(heading: str) -> None:
    assert len(commands(heading)) <= 10
