"""The screens of a fleet and of its change, drawn of what the API answers; status and watch share them."""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.words.changes import what
from orchestrator.words.handovers import duty_lines
from orchestrator.words.offers import all_spelled
from orchestrator.words.signals import signal_lines
from orchestrator.words.standing import (
    NEEDS_YOU,
    before_line,
    change_notices,
    fleet_notices,
    left_out_lines,
    missing_lines,
    named_missing,
    now_line,
    recurring_lines,
    shown_once,
    standing_line,
    stored_lines,
    told_lines,
)
from orchestrator.words.text import printable
from orchestrator.words.times import moment, span

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class Detail(NamedTuple):
    """How much of a change a frame shows."""

    gateways: int
    """Gateways that have a line each; of more only the counts are shown."""
    events: int


WHOLE = Detail(gateways=10, events=6)
"""With five sentences and ten gateways a frame stays within 24 lines."""
DETAILS = (WHOLE, Detail(10, 3), Detail(4, 6), Detail(0, 3), Detail(0, 0))
"""What a terminal shows that is too small for the whole, the first that fits."""

NOTICE = len(NEEDS_YOU)
"""Columns of the label of what stands out."""

_COLOURS = {"held": "yellow", "waiting": "cyan", "rolling_back": "red", "ended": "bold", "observing": "cyan"}
Json = Mapping[str, Any]


def fleet_frame(status: Json, detail: Detail = WHOLE) -> "RenderableType":
    """Return how a fleet stands, with the five sentences of its newest change under what needs somebody."""
    from rich.console import Group  # noqa: PLC0415 - machines do not wait for it
    from rich.text import Text  # noqa: PLC0415

    above = _noticed((*fleet_notices(status), *stored_lines(status), *missing_lines(status)))
    change = status["change"]
    recurring = [
        Text.assemble((f"{label}  ", "dim"), printable(said)) for label, said in recurring_lines(status)
    ]
    if change is None:
        return Group(*above, Text(standing_line(status)), *recurring)
    above.append(Text(now_line(status)))
    if status.get("unbegun"):
        offers = all_spelled(status["offers"])
        return Group(*above, Text(printable(before_line(change))), Text(printable(f"You can  {offers}")))
    people = _noticed((*signal_lines(status.get("signals", {})), *duty_lines(status.get("duty"))))
    offers = all_spelled(status["offers"])
    return Group(*above, change_frame(change, offers, detail, named_missing(status)), *recurring, *people)


def fitted_frame(status: Json, terminal: "Console") -> "RenderableType":
    """Return the frame with as much detail as the height of the terminal has room for."""
    for detail in DETAILS[:-1]:
        frame = fleet_frame(status, detail)
        if len(terminal.render_lines(frame)) < terminal.height:
            return frame
    return fleet_frame(status, DETAILS[-1])


def change_frame(
    change: Json, offers: str, detail: Detail = WHOLE, besides: Collection[str] = ()
) -> "RenderableType":
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
    urgent, left_out = _noticed(change_notices(change)), _noticed(left_out_lines(change, besides))
    gateways = _gateways(change, detail.gateways)
    return Group(head, *urgent, sentences, *left_out, gateways, _events(change, detail.events))


def _noticed(lines: Iterable[tuple[str, str]]) -> "list[RenderableType]":
    """Return what somebody ought to notice, as lines that stand out."""
    from rich.text import Text  # noqa: PLC0415 - machines do not wait for it

    return [Text(printable(f"{label.upper():{NOTICE}}  {said}"), "bold yellow") for label, said in lines]


def _gateways(change: Json, most: int) -> "RenderableType":
    """Return a small fleet gateway by gateway, a large one as counts."""
    from rich.console import Group  # noqa: PLC0415 - machines do not wait for it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    counts, gateways = change["counts"], change["gateways"]
    if counts and (sum(counts.values()) > most or len(gateways) > most):
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


def _events(change: Json, most: int) -> "RenderableType":
    from rich.table import Table  # noqa: PLC0415 - machines do not wait for it
    from rich.text import Text  # noqa: PLC0415

    table = Table.grid(padding=(0, 2))
    for event in change["events"][max(0, len(change["events"]) - most) :]:
        at = moment(event["at"]).split(" ")
        said = shown_once(event["sentence"], change)
        table.add_row(Text(f"{at[1]} {at[2]}", "dim"), Text(printable(said)))
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
