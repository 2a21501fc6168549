"""Rendering: templates that escape whatever people and daemons wrote, and what all of them may use."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.api.problems import status_of
from orchestrator.api.texts import LONGEST_CAUSE, LONGEST_REASON
from orchestrator.api.watch import Watch
from orchestrator.charts.gate import gate_chart, stylesheet
from orchestrator.page.runbooks import parted
from orchestrator.page.session import csrf_of
from orchestrator.page.waves import waves
from orchestrator.service.background import ANSWERS
from orchestrator.words.changes import what
from orchestrator.words.drills import people_line
from orchestrator.words.handovers import duty_lines
from orchestrator.words.notices import row_state
from orchestrator.words.offers import EFFECTS, spelled
from orchestrator.words.signals import signal_lines, signal_rows
from orchestrator.words.standing import (
    as_of,
    change_notices,
    fleet_notices,
    glance_notices,
    installation_notices,
    is_quiet,
    left_out_lines,
    missing_lines,
    named_missing,
    names_engine,
    on_line,
    recurring_lines,
    stored_lines,
    taking_line,
    told_lines,
)
from orchestrator.words.text import printable
from policies.model.errors import NotOrdered, PenstockError, TooMany, Unavailable
from policies.model.people import Caller
from policies.model.report import SWITCHING
from policies.reporting.series import GateSeries, gate_series, gates_of, series_of
from policies.status.sentences import ON_NAMED
from policies.status.told import BACK

STATIC = Path(__file__).parent / "static"
CHARTS = "/static/charts.css"
LABEL = 13
"""Columns of a label on a terminal's screen."""
SHOWN_QUIET = 20
"""Fleets that need nobody are listed at once up to so many; more of them are folded away."""
MOST_CHARTS = 2
"""Gates of a fleet that are drawn; its change shows all of them."""


def rendered(
    request: Request,
    template: str,
    *,
    code: int = 200,
    headers: dict[str, str] | None = None,
    **known: Any,
) -> HTMLResponse:
    """Return a page; the template knows who looks, and what is given here."""
    caller = getattr(request.state, "caller", None)
    watch: Watch | None = request.app.state.watch
    faults = watch.readiness.faults if watch is not None else {}
    seen = {"runbooks": request.app.state.runbooks, **known}
    body = ENVIRONMENT.get_template(template).render(
        request=request, caller=caller, csrf=csrf_of(request), faults=faults, **seen
    )
    return HTMLResponse(body, code, headers)


async def rendered_aside(
    request: Request, template: str, caller: Caller, known: Callable[[], Mapping[str, Any]]
) -> HTMLResponse:
    """Return a page that grows with a fleet or its history; a thread renders it, off the event loop.

    Args:
        request: What is answered.
        template: What is rendered.
        caller: Who asks.
        known: Returns what the template is given; it runs in the thread, too.

    Raises:
        TooMany: The caller has too many long requests under way.
    """
    return await ANSWERS.run(lambda: rendered(request, template, **known()), caller.person)


def problem_of(error: PenstockError) -> tuple[int, dict[str, str] | None]:
    """Return with which status and headers a page tells of an error, which are those of the API."""
    after = {"Retry-After": str(ceil(error.after))} if isinstance(error, TooMany) else None
    return status_of(error), after


def part(template: str, **known: Any) -> str:
    """Return a part of a page, as a stream sends it."""
    return ENVIRONMENT.get_template(template).render(**known)


def compile_templates() -> None:
    """Have every template at hand: nobody's first page waits for that, and a broken one is told at once."""
    for name in ENVIRONMENT.list_templates():
        ENVIRONMENT.get_template(name)


@cache
def static(name: str) -> str:
    """Return the address of a static file: another one for another content, so that it may be kept."""
    content = stylesheet().encode() if name == "charts.css" else (STATIC / name).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


@dataclass(frozen=True)
class Judged:
    """What a change's gates measured and decided so far, the oldest first; drawn once for everybody."""

    verdicts: tuple[Mapping[str, Any], ...] = ()
    samples: tuple[Mapping[str, Any], ...] = ()
    margins: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def size(self) -> int:
        """How much it is in memory, counted in readings of gates."""
        readings = sum(1 + len(row["decision"]["readings"]) for row in self.verdicts)
        return 1 + len(self.samples) + readings

    def series(self) -> Iterator[GateSeries]:
        """Yield what each gate measured that measured something, those with a bad answer first."""
        decided = [{"at": row["at"], "action": row["decision"]["action"]} for row in self.verdicts]
        for gate in gates_of(self.verdicts):
            margin = self.margins.get(gate)
            if self.samples:
                yield series_of(self.samples, decided, gate, margin=margin)
            else:
                yield gate_series(self.verdicts, gate, margin=margin)

    @cached_property
    def drawn(self) -> dict[int, list[tuple[str, Markup]]]:
        """The charts of so many gates, once somebody has asked for them."""
        return {}


def charts(judged: Judged, most: int = MOST_CHARTS) -> list[tuple[str, Markup]]:
    """Return the gates that measured something, those with a bad answer first, each with its chart."""
    if most not in judged.drawn:
        known = (one for one in judged.series() if any(point.changed is not None for point in one.points))
        drawn = [(one.gate, Markup(gate_chart(one))) for one in islice(known, most)]  # noqa: S704 - escaped there
        judged.drawn[most] = drawn
    return judged.drawn[most]


def at(written: str | datetime | None, form: str = "%Y-%m-%d %H:%M:%S") -> Markup:
    """Return a time in UTC, as a machine reads it, too; a dash for none."""
    if not written:
        return Markup("<span>-</span>")
    found = datetime.fromisoformat(written) if isinstance(written, str) else written
    shown = f"{found:{form}} UTC"
    return Markup('<time datetime="{}">{}</time>').format(found.isoformat(), shown)


def clock(written: str | datetime | None) -> Markup:
    """Return the time of day alone."""
    return at(written, "%H:%M:%S")


def query(fields: Mapping[str, Any]) -> str:
    """Return the end of an address that carries these."""
    return f"?{urlencode(fields)}" if fields else ""


def asked(offer: Mapping[str, Any], change: Mapping[str, Any] | None) -> str:
    """Return the end of an address where an offer is taken, of the change that is shown."""
    named = {"gateway": offer["gateway"], "hold_of": offer["hold_of"], "to": offer["release"]}
    fields = {name: value for name, value in named.items() if value}
    fields |= {"change": change["rollout"]} if change else {}
    said = {name: "true" for name in ("force", "settings") if offer[name]}
    return query(fields | said)


GROUPS = (
    ("new", frozenset({"on trial", "kept", "promoted"})),
    ("moving", frozenset(SWITCHING) - {"waiting"}),
    ("back", frozenset({BACK, ON_NAMED})),
    ("waiting", frozenset({"waiting"})),
)
"""States of gateways as a wave's bar colours them; all others are trouble."""


def wave_bar(counts: Mapping[str, int], size: int) -> Markup:
    """Return a bar of a wave: what is on the new release, on its way, back, or in trouble."""
    widths: dict[str, float] = {}
    for state, count in counts.items():
        group = next((name for name, states in GROUPS if state in states), "trouble")
        widths[group] = widths.get(group, 0.0) + 100 * count / max(1, size)
    x, rects = 0.0, list[Markup]()
    for group in ("new", "moving", "back", "trouble"):
        width = widths.get(group, 0.0)
        if width:
            rects.append(
                Markup('<rect class="{}" x="{:.2f}" y="0" width="{:.2f}" height="4"/>').format(
                    group, x, width
                )
            )
        x += width
    bar = '<svg class="share" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    return Markup(bar).format(Markup("").join(rects))  # noqa: S704 - made of numbers and our own words


def sessions_bar(row: Mapping[str, Any], most: int) -> Markup:
    """Return a bar of the sessions on one release, of which `most` is the longest."""
    width, group = 100 * row["sessions"] / most, "new" if row["newer"] else "back"
    bar = (
        '<svg class="share" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="{}" width="{:.2f}" height="4"/></svg>'
    )
    return Markup(bar).format(group, width)  # noqa: S704 - made of numbers and our own words


def words(code: str) -> str:
    """Return a word of a state as people read it."""
    return code.replace("_", " ")


class Internal(PenstockError):
    """An error of penstock's own, which the log names; what it was about to do may be done or not."""


def facts(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Return lines of a terminal's screen as labels, which take their first columns, with what each says."""
    return [(line[1:LABEL].strip(), line[LABEL:]) for line in lines]


def shown(value: Any) -> Any:
    """Return a text line for line as it may be shown; what is none, such as markup of ours, as it is."""
    return "\n".join(map(printable, value.split("\n"))) if type(value) is str else value


ENVIRONMENT = Environment(
    loader=PackageLoader("orchestrator.page"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=shown,
)
ENVIRONMENT.tests["unsure"] = lambda error: (
    isinstance(error, Unavailable | Internal) and not isinstance(error, NotOrdered)
)
ENVIRONMENT.tests["quiet"] = is_quiet
ENVIRONMENT.globals.update(
    shown_quiet=SHOWN_QUIET,
    static=static,
    ordered=frozenset(EFFECTS),
    longest_reason=LONGEST_REASON,
    longest_cause=LONGEST_CAUSE,
)
ENVIRONMENT.filters.update(
    asked=asked,
    charts=charts,
    at=at,
    clock=clock,
    change_notices=change_notices,
    facts=facts,
    fleet_notices=fleet_notices,
    glance_notices=glance_notices,
    installation_notices=installation_notices,
    names_engine=names_engine,
    left_out_lines=left_out_lines,
    missing_lines=missing_lines,
    named_missing=named_missing,
    people_line=people_line,
    query=query,
    duty_lines=duty_lines,
    recurring_lines=recurring_lines,
    sessions_bar=sessions_bar,
    signal_lines=signal_lines,
    signal_rows=signal_rows,
    spelled=spelled,
    stored_lines=stored_lines,
    notice_state=row_state,
    told_lines=told_lines,
    wave_bar=wave_bar,
    waves=waves,
    what=what,
    words=words,
    as_of=as_of,
    on=on_line,
    parted=parted,
    taking=taking_line,
)
