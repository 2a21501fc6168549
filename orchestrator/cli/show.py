"""What people and machines see: one renderer for status and watch, tables for lists, JSON for machines."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.cli.spelling import all_spelled
from policies.judge.offline.predict import Prediction, Proof, what_logins_prove
from policies.model.change import ChangeKind, Outcome, Phase
from policies.model.errors import Unavailable
from policies.model.plan import Plan, Strategy
from policies.model.status import ChangeStatus, Event
from policies.planning.summary import describe

if TYPE_CHECKING:
    from orchestrator.cli.session import Session
    from orchestrator.service.changes import Standing
    from orchestrator.store.changes import HistoryRow

WIDTH = 100
EVERY_SECONDS = 0.5
SHOWN_GATEWAYS = 10
SHOWN_EVENTS = 8

_COLOURS = {
    Phase.HELD: "yellow",
    Phase.ROLLING_BACK: "red",
    Phase.ENDED: "bold",
    Phase.OBSERVING: "cyan",
}


class Output(StrEnum):
    """How a command prints what it found."""

    TABLE = "table"
    JSON = "json"


def console() -> Console:
    """Return the console for people: as wide as the terminal, at most a comfortable width."""
    found = Console(highlight=False)
    return (
        Console(highlight=False, width=min(found.width, WIDTH))
        if found.is_terminal
        else Console(highlight=False, width=WIDTH)
    )


def print_json(value: object) -> None:
    """Print a value for machines."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def status_frame(status: ChangeStatus) -> RenderableType:
    """Return the five sentences with the gateways and the newest events under them."""
    head = Text.assemble(
        (f"{status.rollout}  ", "bold"),
        f"to {status.version}  ",
        (status.phase.replace("_", " ").upper(), _COLOURS.get(status.phase, "")),
    )
    sentences = Table.grid(padding=(0, 2))
    for word, sentence in (
        ("What", status.what),
        ("Users", status.users),
        ("Why", status.why),
        ("Next", status.next),
        ("You can", all_spelled(status.can_do)),
    ):
        sentences.add_row(Text(word, "dim"), Text(sentence))
    urgent = [Text(f"NEEDS YOU  {status.needs_you}", "bold yellow")] if status.needs_you else []
    return Group(head, *urgent, sentences, *_left_out(status), _gateways(status), _events(status))


def _left_out(status: ChangeStatus) -> list[RenderableType]:
    """Return the gateways that were set aside, each with why."""
    if not status.aside:
        return []
    table = Table.grid(padding=(0, 2))
    for name, why in sorted(status.aside.items())[:SHOWN_GATEWAYS]:
        table.add_row(Text("Left out", "yellow"), Text(f"{name}: {why}"))
    if len(status.aside) > SHOWN_GATEWAYS:
        table.add_row("", f"{len(status.aside) - SHOWN_GATEWAYS} more")
    return [table]


def _gateways(status: ChangeStatus) -> RenderableType:
    """Return a small fleet gateway by gateway, a large one as counts."""
    if sum(status.counts.values()) > SHOWN_GATEWAYS or len(status.gateways) > SHOWN_GATEWAYS:
        counted = status.counts or Counter(gateway.state for gateway in status.gateways)
        return Text("Gateways  " + ", ".join(f"{count} {state}" for state, count in sorted(counted.items())))
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("GATEWAY", "WAVE", "RELEASE", "STATE"):
        table.add_column(column)
    for gateway in status.gateways:
        cells = (gateway.gateway, str(gateway.wave), gateway.release or "", gateway.state)
        table.add_row(*[Text(cell) for cell in cells])
    return table if status.gateways else Group()


def _events(status: ChangeStatus) -> Table:
    table = Table.grid(padding=(0, 2))
    for event in status.events[-SHOWN_EVENTS:]:
        table.add_row(Text(event.at.astimezone().strftime("%H:%M:%S"), "dim"), Text(event.sentence))
    return table


def show_status(status: ChangeStatus, output: Output) -> None:
    """Print a change's status."""
    if output is Output.JSON:
        print_json(status.model_dump(mode="json"))
    else:
        console().print(status_frame(status))


def show_standing(standing: "Standing", output: Output, since: str | None = None) -> None:
    """Print what a fleet is on that was not changed since its installation, and what to do first."""
    if output is Output.JSON:
        print_json({"live": True, "last": None, "standing": standing.model_dump(mode="json")})
        return
    out = console()
    on = f"on {', '.join(standing.versions)}" if standing.versions else "on nothing"
    taking = f"{standing.taking}/{standing.gateways} taking users"
    changed = f"No change since {since}, its installation." if since else "No change yet."
    verb = "plan" if standing.taking else "fleet install"
    out.print(
        Text(
            f"{standing.fleet} {on}, {taking}. {changed} Next: penstock {verb} {standing.fleet} --to RELEASE"
        )
    )
    for name, why in sorted(standing.silent.items())[:SHOWN_GATEWAYS]:
        out.print(Text(f"Silent    {name}: {why}"))
    for name, why in sorted(standing.quarantined.items())[:SHOWN_GATEWAYS]:
        out.print(Text(f"Left out  {name}: {why}"))


def show_last_known(row: "HistoryRow | None", silence: str, output: Output) -> None:
    """Print what the ledger knows when no live answer is to be had, and why there is none."""
    if output is Output.JSON:
        print_json({"live": False, "why": silence, "last": row.model_dump(mode="json") if row else None})
        return
    out = console()
    if row is None:
        out.print(Text(f"No change yet. ({silence})"))
        out.print("Next: ./run demo shows one; penstock plan --to RELEASE prints what an upgrade would do")
        return
    said = row.standing.upper() if row.taken_back_by is None else row.standing
    out.print(Text.assemble((f"{row.name}  ", "bold"), f"{_what(row)}  ", (said, "bold")))
    out.print(Text(f"Why   {row.sentence or row.reason}"))
    out.print(f"When  {moment(row.began)}, {moment(row.ended) or 'not ended when last heard of'}")
    out.print(Text(f"From the ledger; there is no live answer: {silence}", "dim"))


def show_incomplete(status: ChangeStatus) -> None:
    """Print exactly which gateways are not back, and why, where people see it beside any other output."""
    lines = [f"ROLLBACK INCOMPLETE: {len(status.incomplete)} gateways are not back; penstock goes on trying:"]
    sys.stderr.write("\n".join([*lines, *(f"  {missing}" for missing in status.incomplete)]) + "\n")


def show_plan(plan: Plan, output: Output, predictions: Sequence[Prediction] = ()) -> None:
    """Print what a plan would do, to whom, for how long, and whether the traffic can decide in time."""
    if output is Output.JSON:
        predicted = [prediction.model_dump(mode="json") for prediction in predictions]
        proofs = [proof.model_dump(mode="json") for proof in _proofs(plan)]
        more = {"digest": plan.digest, "predictions": predicted, "proofs": proofs}
        print_json(plan.model_dump(mode="json") | more)
        return
    out = console()
    out.print(Text.assemble(("PLAN ", "bold"), plan.fleet.name, f" to {plan.release.version}"), end="  ")
    out.print(f"strategy {plan.strategy.replace('_', '-')}  digest {plan.digest[7:19]}")
    for sentence in describe(plan):
        out.print(Text(f" {sentence}"))
    for skipped in plan.skipped[:SHOWN_GATEWAYS]:
        out.print(Text(f" Left alone  {skipped.gateway}: {skipped.reason}"))
    for prediction in predictions:
        out.print(Text(f" Gate        {prediction_line(prediction)}"))
    for proof in _proofs(plan):
        out.print(Text(f" Proof       {proof.sentence}"))
    versions = sorted({release.version for release in plan.known_good.values()})
    out.print(f" Known-good  {', '.join(versions)} on {len(plan.known_good)} gateways")


def show_start_command(plan: Plan) -> None:
    """Print what starts exactly this plan."""
    start = f"penstock upgrade start {plan.fleet.name} --to {plan.release.version}"
    strategy = "" if plan.strategy is Strategy.CANARY else f" --strategy {plan.strategy}"
    console().print(Text(f"Start: {start}{strategy} --plan {plan.digest[7:19]} --reason TEXT"))


def _proofs(plan: Plan) -> tuple[Proof, ...]:
    """Return what the first wave can prove at usual rates of logins."""
    if not plan.waves:
        return ()
    canaries = len(plan.waves[0].gateways)
    controls = len(plan.fleet.gateways) - canaries
    return what_logins_prove(plan.gates, canaries=canaries, controls=controls)


def prediction_line(prediction: Prediction) -> str:
    """Return in one sentence when a gate will have decided, or what to change so that it can."""
    rate = f"{prediction.events_per_minute:.0f} logins a minute"
    if prediction.healthy_after is None or not prediction.in_time:
        return f"{prediction.gate} cannot decide in time at {rate}: {prediction.advice}"
    seconds = prediction.healthy_after.total_seconds()
    return f"{prediction.gate} is proven healthy after about {seconds:.0f} s at {rate} (median)"


def show_history(rows: "Sequence[HistoryRow]", output: Output) -> None:
    """Print changes, the newest first: what each was and what is left of it, under it who and why."""
    if output is Output.JSON:
        print_json([row.model_dump(mode="json") for row in rows])
        return
    out = console()
    names = max((len(row.name) for row in rows), default=0)
    whats = max((len(_what(row)) for row in rows), default=0)
    for row in rows:
        head = f"{row.name:{names}}  {_what(row):{whats}}  {span(row.began, row.ended)}"
        asked = f" after {row.cause}" if row.cause else ""
        lines = [Text(f"{row.requested_by}{asked}: {row.reason}", "dim")]
        lines += [Text(row.sentence, "dim")] if row.sentence else []
        out.print(Text(head))
        out.print(Padding(Group(Text(row.standing, "bold"), *lines), (0, 0, 0, names + 2)))


def _what(row: "HistoryRow") -> str:
    """Return what a change does, as people say it."""
    release = row.release or "known-good"
    return {
        ChangeKind.UPGRADE: f"upgrade to {release}",
        ChangeKind.GO_BACK: f"back to {release}",
        ChangeKind.INSTALL: f"install of {release}",
        ChangeKind.RELOAD: f"reload of {release}",
    }[row.kind]


def moment(at: datetime | None) -> str:
    """Return a time as people read it here, with its zone; empty for none."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}" if at else ""


def span(began: datetime, ended: datetime | None) -> str:
    """Return from when to when as people read it here, with the zone; the day is said once if it is one."""
    if ended is None:
        return f"since {moment(began)}"
    start, stop = moment(began).split(" "), moment(ended).split(" ")
    if start[0] == stop[0] and start[2] == stop[2]:
        return f"{start[0]} {start[1]} to {stop[1]} {stop[2]}"
    return f"{' '.join(start)} to {' '.join(stop)}"


async def watch_until_ended(
    session: "Session", fleet: str, output: Output, within: timedelta | None = None
) -> Outcome | None:
    """Follow a change to its end: one frame on a terminal, one line per event elsewhere.

    Without a time limit an incomplete rollback ends it at once; with one it has until then to
    become complete. None is a change that goes on.
    """
    service = await session.service()
    deadline = None if within is None else time.monotonic() + within.total_seconds()
    out = console()
    live = Live(console=out, auto_refresh=False) if out.is_terminal and output is Output.TABLE else None
    told = 0
    if live:
        live.start()
    try:
        while True:
            late = deadline is not None and time.monotonic() >= deadline
            try:
                status = await service.status(fleet)
            except Unavailable:
                if late:
                    return None
                await asyncio.sleep(EVERY_SECONDS)
                continue
            if live:
                live.update(status_frame(status), refresh=True)
            else:
                told = _print_new_events(status, told, output)
            incomplete = status.outcome is Outcome.ROLLBACK_INCOMPLETE
            if status.phase is Phase.ENDED or (incomplete and (late or deadline is None)):
                return status.outcome
            if late:
                return Outcome.HELD if status.phase is Phase.HELD else None
            await asyncio.sleep(EVERY_SECONDS)
    finally:
        if live:
            live.stop()


def new_events(status: ChangeStatus, told: int) -> tuple[tuple[Event, ...], int]:
    """Return the events after the first `told` of a change that it still remembers, and how many it had."""
    return status.events[max(0, told - status.earlier_events) :], status.earlier_events + len(status.events)


def _print_new_events(status: ChangeStatus, told: int, output: Output) -> int:
    events, had = new_events(status, told)
    for event in events:
        stamp = event.at.strftime("%Y-%m-%dT%H:%M:%SZ")
        if output is Output.JSON:
            line = json.dumps({"at": stamp, "rollout": status.rollout, "sentence": event.sentence})
        else:
            line = f"{stamp} {event.sentence}"
        sys.stdout.write(line + "\n")
    sys.stdout.flush()
    return had
