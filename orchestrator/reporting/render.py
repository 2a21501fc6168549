"""Rendering: a report, as the API answers it in JSON, becomes HTML or Markdown."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from orchestrator.charts.gate import gate_chart, stylesheet
from orchestrator.reporting.markdown import code, plain
from orchestrator.words import reports
from orchestrator.words.changes import what
from orchestrator.words.handovers import handover_line
from orchestrator.words.signals import signal_lines, signal_rows
from orchestrator.words.text import printable
from policies.reporting.series import series_of

Json = Mapping[str, Any]

PROVISIONAL = '<meta name="penstock-report" content="provisional">'
"""What the head of a page has whose change goes on, or whose old sessions may still end."""


def as_html(report: Json) -> str:
    """Return the report as one file of HTML: it asks nobody for anything, and runs nothing."""
    return _environment().get_template("report.html.j2").render(_context(report), charts=_charts(report))


def as_markdown(report: Json) -> str:
    """Return the report as Markdown, which is also readable as it is."""
    return _environment().get_template("report.md.j2").render(_context(report))


def is_final(page: str) -> bool:
    """Return whether a report that was rendered as HTML is the last word, whatever people wrote."""
    return PROVISIONAL not in page


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("orchestrator.reporting", "templates"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    environment.filters |= {
        "plain": plain,
        "code": code,
        "utc": reports.utc,
        "sentence": lambda said: said if said.endswith((".", "!", "?")) else f"{said}.",
        "words": lambda said: str(said).replace("_", " "),
    }
    environment.globals["stylesheet"] = lambda: Markup(stylesheet())  # noqa: S704 - our own file
    return environment


def _shown(value: object) -> object:
    """Return what is put into a template, without control characters where it is anybody's text."""
    return "\n".join(map(printable, value.split("\n"))) if type(value) is str else value


def _context(report: Json) -> dict[str, Any]:
    split, made = report["split"], report["made_at"]
    return {
        "report": report,
        "record": report["record"],
        "title": what(report["record"]),
        "made_while": reports.while_line(report),
        "provisional": "" if report["final"] else Markup(PROVISIONAL),  # noqa: S704 - our own
        "line": reports.report_line(report),
        "losses": reports.losses_sentence(report),
        "bad": reports.bad_line(report),
        "planned": reports.planned_line(report),
        "people": signal_lines(report.get("signals", {})),
        "said": signal_rows(report.get("signals")),
        "handovers": [handover_line(one) for one in report.get("handovers", ())],
        "steps": reports.step_rows(report) if split is not None else [],
        "whole": reports.whole_line(report) if split is not None else "",
        "follow_ups": [reports.follow_up_line(one, made[:10]) for one in report["follow_ups"]],
        "not_shown": {
            "events": report["of"]["events"] - len(report["timeline"]),
            "decisions": report["of"]["decisions"] - len(report["decisions"]),
            "aside": report["of"]["aside"] - len(report["aside"]),
            "incomplete": report["of"]["incomplete"] - len(report["incomplete"]),
            "snapshots": report["of"]["snapshots"] - len(report["snapshots"]),
        },
    }


def _charts(report: Json) -> list[tuple[str, Markup]]:
    """Return the chart of each gate that was sampled, in the report's order; charts escape by themselves."""
    gates = dict.fromkeys(sample["gate"] for sample in report["samples"])
    return [
        (
            gate,
            Markup(  # noqa: S704 - a chart escapes every text in it
                gate_chart(
                    series_of(
                        report["samples"], report["decisions"], gate, margin=report["margins"].get(gate)
                    )
                )
            ),
        )
        for gate in gates
    ]
