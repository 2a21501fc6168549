"""Describe the command line: every command with its options, and every exit code."""

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import typer

from deploy.reference.markdown import page, prose, sentence, table
from orchestrator.cli.main import OFFLINE, app
from orchestrator.exit_code import ExitCode

ALWAYS = {"help", "install_completion", "show_completion"}
"""What every command has, or the program itself."""


def text() -> str:
    """Return the page."""
    return page(
        "Commands",
        "Every command has `--help`. `-o json` and `-o yaml` are for programs: their form stays the same "
        "between versions.",
        *(_command(path, command) for path, command in sorted(_commands(typer.main.get_command(app)))),
        "## Exit codes",
        table(("Code", "Meaning"), [(str(int(code)), code.meaning) for code in ExitCode]),
    )


def _commands(group: Any, path: str = "penstock") -> Iterator[tuple[str, Any]]:
    """Yield every command that people are meant to see, by the words that are typed."""
    for name, command in group.commands.items():
        found = command
        if path == "penstock" and name in OFFLINE:
            found = typer.main.get_command(importlib.import_module(f"orchestrator.cli.{name}").app)
        if hasattr(found, "commands"):
            yield from _commands(found, f"{path} {name}")
        elif not found.hidden:
            yield f"{path} {name}", found


def _command(path: str, command: Any) -> str:
    shown = [one for one in command.params if one.name not in ALWAYS and not one.hidden]
    parts = [f"## {path}", prose(inspect.cleandoc(command.help or ""))]
    if shown:
        shown.sort(key=lambda one: one.param_type_name)
        rows = [(_spelled(one), _default(one), sentence(one.help or "")) for one in shown]
        parts.append(table(("Argument", "Default", "Means"), rows))
    return "\n\n".join(parts)


def _spelled(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    choices = getattr(parameter.type, "choices", None)
    if choices:
        return f"{names} " + ", ".join(f"`{getattr(one, 'value', one)}`" for one in choices)
    return names if parameter.is_flag else f"{names} `{parameter.metavar or _kind(parameter)}`"


def _kind(parameter: Any) -> str:
    said: str = parameter.type.name
    return {"str": "TEXT", "text": "TEXT", "int": "NUMBER", "int range": "NUMBER", "float": "NUMBER"}.get(
        said, said.upper()
    )


def _default(parameter: Any) -> str:
    if parameter.required:
        return "has to be said"
    value = parameter.default
    if value is None or value is False or value == ():
        return ""
    return f"`{getattr(value, 'value', value)}`"
