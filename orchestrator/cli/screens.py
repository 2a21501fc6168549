"""The screens of a fleet and of its change, drawn of what the API answers; status and watch share them."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.words.changes import what
from orchestrator.words.handovers import duty_lines
from orchestrator.words.offers import all_spelled
from orchestrator.words.signals import signal_lines
from orchestrator.words.standing import (
    NEEDS_YOU,
    change_notices,
    fleet_notices,
    left_out_lines,
    missing_lines,
    now_line,
    recurring_lines,
    standing_line,
    told_lines,
)
from orchestrator.words.text import printable
from orchestrator.words.times import moment, span

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN_GATEWAYS = 10
SHOWN_EVENTS = 6
"""With five sentences and ten gateways a frame stays within 24 lines."""

NOTICE = len(NEEDS_YOU)
"""Columns of the label of what stands out."""

_COLOURS = {"held": "yellow", "waiting": "cyan", "rolling_back": "red", "ended": "bold", "observing": "cyan"}
Json = Mapping[str, Any]


def fleet_frame(status: Json) -> "RenderableType":
    """Return how a fleet stands, with the five sentences of its newest change."""
    from rich.console import Group  # noqa: PLC0415 - machines do not wait for it
    from rich.text import Text  # noqa: PLC0415

    above, below = _noticed(fleet_notices(status)), _noticed(missing_lines(status))
    change = status["change"]
    recurring = [
        Text.assemble((f"{label}  ", "dim"), printable(said)) for label, said in recurring_lines(status)
    ]
    if change is None:
        return Group(*above, Text(standing_line(status)), *recurring, *below)
    above.append(Text(now_line(status)))
    people = _noticed((*signal_lines(status.get("signals", {})), *duty_lines(status.get("duty"))))
    return Group(*above, change_frame(change, all_spelled(status["offers"])), *recurring, *people, *below)


def change_frame(change: Json, offers: str) -> "RenderableType":
    """Return the five sentences with the gateways and the newest events under them."""
    from rich.console import Group  # noqa: PLC0415 - machines do not wait for it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    head = Text.assemble(
        (f"{change['rollout']}  ", "bold"),
        f"to {printable(change['version'])}  ",
        ((change["outcome"] or change["phase"]).replace("_", " ").upper(), _COLOURS.get(change["phase"], "")),
    )
    sentences = Table.grid(padding=(0, 2))
    for word, sentence in (*told_lines(change), ("You can", offers)):
        sentences.add_row(Text(word, "dim"), Text(printable(sentence)))
    urgent, left_out = _noticed(change_notices(change)), _noticed(left_out_lines(change))
    return Group(head, *urgent, sentences, *left_out, _gateways(change), _events(change))


def _noticed(lines: Iterable[tuple[str, str]]) -> "list[RenderableType]":
    """Return what somebody ought to notice, as lines that stand out."""
    from rich.text import Text  # noqa: PLC0415 - machines do not wait for it

    return [Text(printable(f"{label.upper():{NOTICE}}  {said}"), "bold yellow") for label, said in lines]


def _gateways(change: Json) -> "RenderableType":
    """Return a small fleet gateway by gateway, a large one as counts."""
    from rich.console import Group  # noqa: PLC0415 - machines do not wait for it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    counts, gateways = change["counts"], change["gateways"]
    if sum(counts.values()) > SHOWN_GATEWAYS or len(gateways) > SHOWN_GATEWAYS:
        return Text("Gateways  " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    if not gateways:
        return Group()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("GATEWAY", "WAVE", "RELEASE", "STATE"):
        table.add_column(column)
    for one in gateways:
        cells = (one["gateway"], str(one["wave"]), one["release"] or "", one["state"])
        table.add_row(*[Text(printable(cell)) for cell in cells])
    return table


def _events(change: Json) -> "RenderableType":
    from rich.table import Table  # noqa: PLC0415 - machines do not wait for it
    from rich.text import Text  # noqa: PLC0415

    table = Table.grid(padding=(0, 2))
    for event in change["events"][-SHOWN_EVENTS:]:
        at = moment(event["at"]).split(" ")
        table.add_row(Text(f"{at[1]} {at[2]}", "dim"), Text(printable(event["sentence"])))
    return table


def history_lines(rows: list[Json]) -> "list[RenderableType]":
    """Return changes, the newest first: what each was and what is left of it, under it who and why."""
    from rich.console import Group  # noqa: PLC0415 - machines do not wait for it
    from rich.padding import Padding  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    names = max((len(row["name"]) for row in rows), default=0)
    whats = max((len(what(row)) for row in rows), default=0)
    lines: list[RenderableType] = []
    for row in rows:
        asked = f" after {row['cause']}" if row["cause"] else ""
        under = [Text(printable(f"{row['requested_by']}{asked}: {row['reason']}"), "dim")]
        under += [Text(printable(row["sentence"]), "dim")] if row["sentence"] else []
        lines.append(Text(f"{row['name']:{names}}  {what(row):{whats}}  {span(row['began'], row['ended'])}"))
        under += [Text(printable(f"Changes: {row['headline']}"), "dim")] if row["headline"] else []
        standing = Text(printable(row["standing"]), "bold")
        lines.append(Padding(Group(standing, *under), (0, 0, 0, names + 2)))
    return lines
