"""The tree's look: help in plain text, commands under what they are for; drawn boxes took twice the time."""

from typing import Any

import typer
from typer.core import TyperGroup

STOP, SEE, CHANGE, RUN, TOOLS = "Stop and go back", "See", "Change", "Run", "Tools"
COMMANDS = "Commands"
ORDER = (STOP, SEE, CHANGE, RUN, TOOLS, COMMANDS)
"""What somebody in a hurry looks for stands first."""

MOST_OF_A_LINE = 200
"""Characters of what a command says of itself; none says as much."""


class Tree(TyperGroup):
    """A group whose help lists its commands by panel, each with its whole sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each panel, its commands in the order of the tree."""
        panels: dict[str, list[tuple[str, str]]] = {panel: [] for panel in ORDER}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if not command.hidden:
                panels[command.rich_help_panel or COMMANDS].append(
                    (name, command.get_short_help_str(MOST_OF_A_LINE))
                )
        for panel, rows in panels.items():
            if rows:
                with formatter.section(panel):
                    formatter.write_dl(rows)


def group(text: str) -> typer.Typer:
    """Return a group of commands that says this of itself, and shows its help when no command is named."""
    return typer.Typer(help=text, no_args_is_help=True, cls=Tree)
