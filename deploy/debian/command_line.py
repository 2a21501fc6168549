"""The command line as it describes itself: its whole tree, so that nothing made of it is out of date."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer
import typer.main

from orchestrator.cli.main import OFFLINE, app


@dataclass(frozen=True)
class Node:
    """One command or group, by the words that lead to it."""

    words: tuple[str, ...]
    command: Any
    """As typer has it; its classes are its own affair."""

    @property
    def children(self) -> "tuple[Node, ...]":
        """What can be said next, in the order of the help; nothing for a command."""
        named: dict[str, Any] = getattr(self.command, "commands", {})
        return tuple(Node((*self.words, name), one) for name, one in named.items() if not one.hidden)

    @property
    def says(self) -> str:
        """What it says of itself, its first sentence first."""
        return str(self.command.help or "")

    @property
    def usage(self) -> str:
        """How it is typed."""
        context = typer.Context(self.command, info_name=" ".join(self.words))
        return str(self.command.get_usage(context)).removeprefix("Usage: ")

    @property
    def options(self) -> tuple[Any, ...]:
        """Its options, without --help and what installs another completion."""
        found = (one for one in self.command.params if one.param_type_name == "option" and not one.hidden)
        return tuple(one for one in found if not {"--install-completion", "--show-completion"} & {*one.opts})

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Arguments and options, each with its sentence."""
        context = typer.Context(self.command, info_name=" ".join(self.words))
        params = [one for one in self.command.params if one.param_type_name == "argument"]
        records = (one.get_help_record(context) for one in [*params, *self.options])
        return [record for record in records if record is not None]

    def walk(self) -> "Iterator[Node]":
        """Yield this node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


def whole_tree() -> Node:
    """Return the root, with the groups that the command itself loads only when they are meant."""
    app.registered_groups = [one for one in app.registered_groups if one.name not in OFFLINE]
    for name, (_, panel) in OFFLINE.items():
        found: typer.Typer = importlib.import_module(f"orchestrator.cli.{name}").app
        app.add_typer(found, name=name, rich_help_panel=panel)
    return Node(("penstock",), typer.main.get_command(app))
