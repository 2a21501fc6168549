"""The screens of a fleet and of its change, drawn of what the API answers; status and watch share them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.cli.output import moment, printable, span
from orchestrator.cli.spelling import all_spelled

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN_GATEWAYS = 10
SHOWN_EVENTS = 6
SHOWN_CHANGES = 12
"""With five sentences and ten gateways a frame stays within 24 lines."""

_COLOURS = {"held": "yellow", "rolling_back": "red", "ended": "bold", "observing": "cyan"}
Json = Mapping[str, Any]


def fleet_frame(status: Json) -> "RenderableType":
    """Return how a fleet stands, with the five sentences of its newest change."""
    from rich.console import Group  # noqa: PLC0415 - machines do not wait for it
    from rich.text import Text  # noqa: PLC0415

    concern = [Text(f"NEEDS YOU  {printable(status['concern'])}", "bold yellow")] if status["concern"] else []
    change = status["change"]
    if change is None:
        return Group(*concern, Text(standing_line(status)), *_missing(status["standing"]))
    return Group(*concern, change_frame(change, all_spelled(status["offers"])), *_missing(status["standing"]))


def standing_line(status: Json) -> str:
    """Return what a fleet is on that has no change to tell of, and what begins one."""
    standing = status["standing"]
    on = f"on {', '.join(standing['versions'])}" if standing["versions"] else "on nothing that was seen yet"
    taking = f"{standing['taking']}/{standing['gateways']} taking users"
    return printable(
        f"{status['fleet']} {on}, {taking}. No change yet. Next: {all_spelled(status['offers'])}"
    )


def change_frame(change: Json, offers: str) -> "RenderableType":
    """Return the five sentences with the gateways and the newest events under them."""
    from rich.console import Group  # noqa: PLC0415 - machines do not wait for it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    head = Text.assemble(
        (f"{change['rollout']}  ", "bold"),
        f"to {printable(change['version'])}  ",
        (change["phase"].replace("_", " ").upper(), _COLOURS.get(change["phase"], "")),
    )
    sentences = Table.grid(padding=(0, 2))
    for word, sentence in (
        ("What", change["what"]),
        ("Users", change["users"]),
        ("Why", change["why"]),
        ("Next", change["next"]),
        ("You can", offers),
    ):
        sentences.add_row(Text(word, "dim"), Text(printable(sentence)))
    needs = change["needs_you"]
    urgent = [Text(f"NEEDS YOU  {printable(needs)}", "bold yellow")] if needs else []
    return Group(head, *urgent, sentences, *_left_out(change), _gateways(change), _events(change))


def _left_out(change: Json) -> "list[RenderableType]":
    """Return the gateways that were set aside, each with why."""
    from rich.text import Text  # noqa: PLC0415 - machines do not wait for it

    aside = sorted(change["aside"].items())
    lines: list[RenderableType] = [
        Text.assemble(("Left out  ", "yellow"), printable(f"{name}: {why}"))
        for name, why in aside[:SHOWN_GATEWAYS]
    ]
    if len(aside) > SHOWN_GATEWAYS:
        lines.append(Text(f"          {len(aside) - SHOWN_GATEWAYS} more"))
    return lines


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


def _missing(standing: Json) -> "list[RenderableType]":
    """Return the gateways that were silent or that somebody left out."""
    from rich.text import Text  # noqa: PLC0415 - machines do not wait for it

    lines: list[RenderableType] = []
    for word, found, count in (
        ("Silent", standing["silent"], standing["silent_count"]),
        ("Quarantined", standing["quarantined"], len(standing["quarantined"])),
        ("Drain of", standing["held_drains"], len(standing["held_drains"])),
    ):
        lines += [
            Text(printable(f"NEEDS YOU  {word} {name}: {why}"), "yellow")
            for name, why in sorted(found.items())[:SHOWN_GATEWAYS]
        ]
        if count > SHOWN_GATEWAYS:
            lines.append(Text(f"           {count - SHOWN_GATEWAYS} more {word.lower()}"))
    return lines


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


KINDS = {
    "upgrade": "upgrade to",
    "go_back": "back to",
    "install": "install of",
    "reload": "reload of",
    "configure": "change of",
    "adopt": "adoption of",
}
"""How a change of each kind is called before the name of its release."""


def what(row: Json) -> str:
    """Return what a change does, as people say it."""
    release = row["release"] or "known-good"
    return printable(f"{KINDS[row['kind']]} {release}")


def plan_lines(plan: Json) -> list[str]:
    """Return what a plan would do, to whom, for how long, and what starts exactly it."""
    strategy = f"  strategy {plan['strategy'].replace('_', '-')}" if plan["strategy"] else ""
    leads = "to " if plan["release"] else ""
    lines = [f"PLAN {plan['fleet']} {leads}{plan['version']}{strategy}  digest {plan['digest'][7:19]}"]
    lines += [f" WARNING     {warning}" for warning in plan["warnings"]]
    lines += [f" {sentence}" for sentence in plan["sentences"]]
    lines += [
        f" Left alone  {one['gateway']}: {one['reason']}" for one in plan["left_alone"][:SHOWN_GATEWAYS]
    ]
    lines += [f" Gate        {prediction_line(one)}" for one in plan["predictions"]]
    lines += [f" Proof       {proof['sentence']}" for proof in plan["proofs"]]
    back = ", ".join(f"{version} on {count}" for version, count in plan["known_good"].items())
    lines += [f" Known-good  {back} gateways"] if back else []
    lines += [f" Signed by   {signer}" for signer in plan["signers"]]
    lines += [f" Changes     {line}" for line in changelog_lines(plan["changelog"], plan["version"])]
    lines += [f" Approval    {line}" for line in approval_lines(plan["approved"])]
    if plan["offers"]:
        lines.append(f"Start: {all_spelled(plan['offers'])}")
    return [printable(line) for line in lines]


def changelog_lines(changelog: str, version: str) -> list[str]:
    """Return the beginning of what a release's signers say that it changes, and where the rest is."""
    lines = [line.rstrip() for line in changelog.splitlines() if line.strip()]
    if len(lines) > SHOWN_CHANGES:
        rest = f"{len(lines) - SHOWN_CHANGES} more lines: penstock release show {version}"
        lines = [*lines[:SHOWN_CHANGES], rest]
    return lines


def approval_lines(approved: Json) -> list[str]:
    """Return how many people must approve a plan, why, and who has; nothing where it needs nobody."""
    wanted = approved["required"]
    if not wanted["count"]:
        return []
    people = ", ".join(approved["people"]) or "nobody yet"
    return [f"{wanted['count']} needed who do not start it: {wanted['reason']}; approved by {people}"]


def prediction_line(prediction: Json) -> str:
    """Return in one sentence when a gate will have decided, or what to change so that it can."""
    from orchestrator.cli.words import seconds_of  # noqa: PLC0415 - a plan is printed seldom

    rate = f"{prediction['events_per_minute']:.0f} logins a minute"
    if prediction["healthy_after"] is None or not prediction["in_time"]:
        return f"{prediction['gate']} cannot decide in time at {rate}: {prediction['advice']}"
    seconds = seconds_of(prediction["healthy_after"])
    return f"{prediction['gate']} is proven healthy after about {seconds:.0f} s at {rate} (median)"
