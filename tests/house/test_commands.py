"""The README's commands and the program's are the same, and each ends with the code it means."""

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from orchestrator import __main__ as program
from orchestrator.cli import main as tree
from orchestrator.cli.main import OFFLINE, app
from orchestrator.exit_code import ExitCode
from orchestrator.processes import leaving
from policies.model.errors import BadInput, Conflict, Refused
from tests.house.tree import ROOT, documents


def commands(group: typer.Typer, path: str = "penstock") -> Iterator[str]:
    """Every command of the tree that people are meant to see."""
    for command in group.registered_commands:
        if not command.hidden:
            assert command.callback is not None
            yield f"{path} {command.name or command.callback.__name__.replace('_', '-')}"
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, f"{path} {inner.name}" if inner.name else path)


def test_the_readme_lists_exactly_the_commands_there_are() -> None:
    readme = (ROOT / "README.md").read_text()
    listed = re.findall(r"^\| `(penstock [a-z -]+)` \|", readme, flags=re.MULTILINE)
    assert len(listed) == len(set(listed))
    there = set(commands(app))
    for name, (text, _) in OFFLINE.items():
        group: typer.Typer = importlib.import_module(f"orchestrator.cli.{name}").app
        assert group.info.help == text, "the help of a group is the same whether it is loaded or not"
        there |= set(commands(group, f"penstock {name}"))
    assert set(listed) == there


@pytest.mark.parametrize("arguments", [["nonsense"], ["hold"], ["upgrade", "start"], ["plan", "--to"]])
def test_bad_usage_ends_with_two_and_no_traceback(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "orchestrator", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == ExitCode.USAGE
    assert ended.stdout == ""
    assert "Error" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (None, ExitCode.DONE),
        (typer.Exit(ExitCode.ROLLED_BACK), ExitCode.ROLLED_BACK),
        (typer.Exit(ExitCode.ROLLBACK_INCOMPLETE), ExitCode.ROLLBACK_INCOMPLETE),
        (KeyboardInterrupt(), ExitCode.DETACHED),
        (BadInput("x is y; write z"), ExitCode.USAGE),
        (Refused("x is short of y; add z"), ExitCode.REFUSED),
        (Conflict("x is under way; wait"), ExitCode.CONFLICT),
    ],
)
def test_however_a_command_ends_the_process_says_so(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ending: BaseException | None,
    code: ExitCode,
) -> None:
    left: list[int] = []
    small = typer.Typer(pretty_exceptions_enable=False)

    @small.command()
    def run() -> None:
        if ending is not None:
            raise ending

    monkeypatch.setattr(tree, "app", small)
    monkeypatch.setattr(leaving, "leave", left.append)
    monkeypatch.setattr(sys, "argv", ["penstock"])
    program.main()
    assert left == [code]
    said = capsys.readouterr().err
    assert said == (
        f"{type(ending).__name__}: {ending}\n" if isinstance(ending, BadInput | Refused | Conflict) else ""
    )


def typed() -> Iterator[tuple[str, str]]:
    """Every command that a document has people type, with the document's name.

    It stands in a block of its own, or in a sentence together with its reason: that one is whole. What a
    shell does with its answer, after ` | `, is no word of the command.
    """
    for page in documents():
        text = page.read_text()
        lines = re.findall(r"^[a-z]*[$#] (penstock .+)$", text, flags=re.MULTILINE)
        for line in lines + re.findall(r"`(penstock [^`\n]+ --reason [^`\n]+)`", text):
            yield page.relative_to(ROOT).as_posix(), line.partition(" | ")[0]


@pytest.mark.parametrize(("page", "line"), sorted(set(typed())))
def test_what_a_document_has_people_type_is_understood(page: str, line: str) -> None:
    """At 3 a.m. a runbook's command that misses an option is worse than none."""
    assert page
    command: Any = typer.main.get_command(app)
    name, *words = shlex.split(line, comments=True)
    while hasattr(command, "list_commands"):
        name, *words = words
        if name in OFFLINE:
            command = typer.main.get_command(importlib.import_module(f"orchestrator.cli.{name}").app)
        else:
            command = command.get_command(None, name)
        assert command is not None, f"there is no command {name}"
    try:
        command.make_context(name, words)
    except typer.BadParameter as error:
        if "does not exist" not in str(error):  # a file of whoever types it
            raise
