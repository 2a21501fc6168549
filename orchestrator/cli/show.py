"""What people and machines see: one renderer for status and watch, tables for lists, JSON for machines."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from policies.judge.offline.predict import Prediction, Proof, what_logins_prove
from policies.strategies import affected
from policies.words.errors import Unavailable
from policies.words.plan import Plan
from policies.words.rollout import Outcome, Phase, RolloutStatus

if TYPE_CHECKING:
    from orchestrator.cli.session import Session
    from orchestrator.store.ledger import RolloutRow

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


def status_frame(status: RolloutStatus) -> RenderableType:
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
        ("You can", status.can_do),
    ):
        sentences.add_row(Text(word, "dim"), sentence)
    return Group(head, sentences, _gateways(status), _events(status))


def _gateways(status: RolloutStatus) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("GATEWAY", "WAVE", "RELEASE", "STATE"):
        table.add_column(column)
    quiet = [g for g in status.gateways if g.state in {"kept", "waiting"}]
    loud = [g for g in status.gateways if g not in quiet]
    for gateway in [*loud, *quiet][:SHOWN_GATEWAYS]:
        table.add_row(gateway.gateway, str(gateway.wave), gateway.release or "", gateway.state)
    if len(status.gateways) > SHOWN_GATEWAYS:
        table.add_row(f"{len(status.gateways) - SHOWN_GATEWAYS} more", "", "", "")
    return table


def _events(status: RolloutStatus) -> Table:
    table = Table.grid(padding=(0, 2))
    for event in status.events[-SHOWN_EVENTS:]:
        table.add_row(Text(event.at.astimezone().strftime("%H:%M:%S"), "dim"), event.sentence)
    return table


def show_status(status: RolloutStatus, output: Output) -> None:
    """Print a rollout's status."""
    if output is Output.JSON:
        print_json(status.model_dump(mode="json"))
    else:
        console().print(status_frame(status))


def show_last_known(row: "RolloutRow | None", silence: str, output: Output) -> None:
    """Print what the ledger knows when no live answer is to be had, and why there is none."""
    if output is Output.JSON:
        print_json({"live": False, "why": silence, "last": row.model_dump(mode="json") if row else None})
        return
    out = console()
    if row is None:
        out.print(f"No rollout yet. ({silence})")
        out.print("Next: ./run demo shows one; penstock upgrade start --to RELEASE --reason TEXT starts one")
        return
    ended = f"{row.ended.astimezone():%Y-%m-%d %H:%M:%S}" if row.ended else "not ended when last heard of"
    outcome = (row.outcome or "under way").replace("_", " ").upper()
    out.print(Text.assemble((f"{row.rollout}  ", "bold"), f"to {row.version}  ", (outcome, "bold")))
    out.print(f"Why   {row.reason}")
    out.print(f"When  {row.started.astimezone():%Y-%m-%d %H:%M:%S}, {ended}")
    out.print(Text(f"From the ledger; there is no live answer: {silence}", "dim"))


def show_incomplete(status: RolloutStatus) -> None:
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
    touched = affected(plan)
    out = console()
    out.print(Text.assemble(("PLAN ", "bold"), plan.fleet.name, f" to {plan.release.version}"), end="  ")
    out.print(f"strategy {plan.strategy.replace('_', '-')}  digest {plan.digest[7:19]}")
    rows = Table.grid(padding=(0, 2))
    for wave in plan.waves:
        users = sum(plan.sessions.get(name) or 0 for name in wave.gateways)
        rows.add_row(f" Wave {wave.number}", ", ".join(wave.gateways), f"{users} users")
    out.print(rows)
    for skipped in plan.skipped:
        out.print(f" Left alone  {skipped.gateway}: {skipped.reason}")
    unknown = f", unknown on {', '.join(touched.uncounted)}" if touched.uncounted else ""
    out.print(
        f" Users on these gateways  {touched.users}{unknown}; at most {touched.exposed} before a verdict"
    )
    out.print(f" Time        expected {touched.expected}, longest {touched.longest}")
    for prediction in predictions:
        out.print(f" Gate        {prediction_line(prediction)}")
    for proof in _proofs(plan):
        out.print(f" Proof       {proof.sentence}")
    versions = sorted({release.version for release in plan.known_good.values()})
    out.print(f" Known-good  {', '.join(versions)} on {len(plan.known_good)} gateways")


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


def show_history(rows: "Sequence[RolloutRow]", output: Output) -> None:
    """Print rollouts, the newest first."""
    if output is Output.JSON:
        print_json([row.model_dump(mode="json") for row in rows])
        return
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("ROLLOUT", "RELEASE", "STARTED", "OUTCOME", "WHY"):
        table.add_column(column)
    for row in rows:
        started = row.started.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        outcome = (row.outcome or "under way").replace("_", " ")
        table.add_row(row.rollout, row.version, started, outcome, row.reason)
    console().print(table)


async def watch_until_ended(
    session: "Session", fleet: str, output: Output, within: timedelta | None = None
) -> Outcome | None:
    """Follow a rollout to its end: one frame on a terminal, one line per event elsewhere.

    Without a time limit an incomplete rollback ends it at once; with one it has until then to
    become complete. None is a rollout that goes on.
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


def _print_new_events(status: RolloutStatus, told: int, output: Output) -> int:
    for event in status.events[told:]:
        stamp = event.at.strftime("%Y-%m-%dT%H:%M:%SZ")
        if output is Output.JSON:
            line = json.dumps({"at": stamp, "rollout": status.rollout, "sentence": event.sentence})
        else:
            line = f"{stamp} {event.sentence}"
        sys.stdout.write(line + "\n")
    sys.stdout.flush()
    return len(status.events)
