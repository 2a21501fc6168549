"""Drills in words: how it stands with one, and what a run came to, from what the API answers."""

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

STANDINGS = {
    "failed": "failed",
    "over_budget": "over budget",
    "never": "never rehearsed",
    "passed": "passed",
}


def run_line(run: Json) -> str:
    """Return what a run came to, with its seconds against its budget and why it is no better."""
    report = run["report"]
    said = came_to({"outcome": run["outcome"], "seconds": run["seconds"], "budget": report["budget"]})
    if report["failure"] is not None:
        said = f"{said}, {report['failure']}"
    lost = report["sessions_lost"]
    return f"{said}, {lost} session{'' if lost == 1 else 's'} lost{people_line(report)}"


def people_line(report: Json) -> str:
    """Return who took part in a run, and how long hand-overs took; empty where nobody is named."""
    people, handovers = report.get("people", ()), report.get("handovers", ())
    said = f", with {', '.join(people)}" if people else ""
    for one in handovers:
        said += f", {one['giver']} handed over to {one['taker']} within {one['seconds']:.0f} s"
    return said


def came_to(point: Json) -> str:
    """Return what a run came to, and how long it took against how long it may."""
    seconds, budget = point["seconds"], f"{point['budget']:g} s"
    if seconds is None:
        took = f"not seen to be safe within {budget}"
    elif point["outcome"] == "failed":
        took = f"the last step after {seconds:.1f} s of {budget}"
    else:
        took = f"safe after {seconds:.1f} s of {budget}"
    return f"{STANDINGS[point['outcome']]}: {took}"


def row_line(row: Json) -> str:
    """Return how it stands with a drill."""
    past = row["past"]
    if past is None:
        return f"never rehearsed: whether users are safe within {row['budget']:g} s is not known"
    last = past["last"]
    said = run_line(last)
    if row["standing"] != last["outcome"]:
        return f"{STANDINGS[row['standing']]} of now, which is {row['budget']:g} s; then {said}"
    return said
