"""What a person sees of the demo: one fixed frame on a terminal, one line per event elsewhere."""

import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.cli.output import console
from orchestrator.cli.screens import change_frame
from orchestrator.words.offers import all_spelled
from policies.model.status import ChangeStatus


class Screen:
    """Shows a story: `tell` adds a line, `show` replaces the frame."""

    def __init__(self) -> None:
        self._console = console()
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._told = 0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def headline(self, sentence: str) -> None:
        """Begin a chapter."""
        self._told = 0
        if self._live:
            self._console.print(Text(sentence, "bold"))
        else:
            self.tell(sentence)

    def tell(self, sentence: str, at: datetime | None = None) -> None:
        """Add one line with its time."""
        moment = at or datetime.now(UTC)
        if self._live:
            stamp = Text(moment.astimezone().strftime("%H:%M:%S "), "dim")
            self._console.print(Text.assemble(stamp, sentence))
        else:
            sys.stdout.write(f"{moment.strftime('%Y-%m-%dT%H:%M:%SZ')} {sentence}\n")
            sys.stdout.flush()

    def show(self, status: ChangeStatus, figures: dict[str, Any]) -> None:
        """Show where a rollout is and what its users notice."""
        if self._live:
            self._live.update(Group(_frame(status), _figures(figures)), refresh=True)
            return
        begun = max(0, self._told - status.earlier_events)
        for event in status.events[begun:]:
            self.tell(event.sentence, event.at)
        self._told = status.earlier_events + len(status.events)

    def leave(self, status: ChangeStatus, figures: dict[str, Any]) -> None:
        """Let the last frame stand, and begin a new one under it."""
        self.show(status, figures)
        if self._live:
            self._live.stop()
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()

    def print(self, table: Table) -> None:
        """Print a table under everything."""
        self._console.print(table)


def _frame(status: ChangeStatus) -> RenderableType:
    shown = status.model_dump(mode="json")
    return change_frame(shown, all_spelled(shown["can_do"]))


def _figures(figures: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row(Text("Tunnels", "dim"), f"{figures['up']} up, {figures['lost']} lost")
    pings = figures["pings"]
    table.add_row(Text("Pings", "dim"), f"{pings['sent']} sent, {pings['lost']} lost")
    table.add_row(Text("Logins", "dim"), ", ".join(f"{n} {what}" for what, n in figures["logins"].items()))
    return table
