"""Drills: rehearsed failures on a lab of their own, with the seconds of every step.

`python -m deploy.lab.drills list` and `run NAME [--json FILE]`; `penstock drill` is the same.
Nothing but the lab is touched: a fleet with users is not for rehearsals.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.lab import synapse
from deploy.lab.bad_days import DOOR_PORT, BadDays, Door
from deploy.lab.chat_drill import rollback_by_chat
from deploy.lab.disasters import Disasters
from deploy.lab.faults import Fault, Faults, cut_off, flush_nftables, nft_refuses, no_room
from deploy.lab.lab import Lab, Shape, lab
from deploy.lab.rehearsal import Rehearsal, Trial, map_of, said, step, told, verdict_at
from deploy.lab.topology import Host
from orchestrator.exit_code import ExitCode
from orchestrator.processes.leaving import leave
from orchestrator.words.drills import run_line
from policies.drills import DRILLS
from policies.model.drill import DrillOutcome, DrillReport, DrillStep
from policies.model.errors import BadInput, PenstockError, Unavailable
from policies.model.status import ChangeStatus
from policies.model.value import sentence
from policies.model.verdict import Action, Window

GATEWAYS = 3
FORGOTTEN = 0.35
SUPERVISOR = 2.0
"""Seconds until whoever supervises processes has noticed that one ended."""
LONG = Window(
    minimum=timedelta(hours=1), nominal=timedelta(hours=1), extension=timedelta(0), cap=timedelta(hours=2)
)
"""A window in which nothing is promoted, so that the drill has all the time it needs."""
PATIENCE = 90.0


class Stage:
    """A lab with everything that a drill needs."""

    def __init__(self, lab: Lab, door: Door) -> None:
        self.lab = lab
        self.days = BadDays(lab, door)
        self.faults = Faults(lab)
        self.rehearsal = Rehearsal(lab)
        self.rehearsal.judge_by(LONG)
        self.own_losses = 0
        """Sessions that nobody could have kept: those of a host that was rebooted."""

    # --- failures of a release -----------------------------------------------------

    async def bad_logins(self) -> list[DrillStep]:
        """A release on which a third of the people cannot log in."""
        self.days.forget_people(FORGOTTEN)
        trial = await self.rehearsal.on_trial(self.lab.faulty, "drill")
        return await self._undone(trial, trial.since)

    async def crash(self) -> list[DrillStep]:
        """An instance that dies."""
        trial = await self.rehearsal.on_trial(self.lab.newer, "drill")
        began = datetime.now(UTC)
        async with self.days.crash(trial.pid):
            return await self._undone(trial, began)

    async def _undone(self, trial: Trial, began: datetime) -> list[DrillStep]:
        """Follow the judge's own way back to its end."""
        status = await self.rehearsal.until(lambda _: False)
        decided = verdict_at(status)
        safe = self.lab.last_login_on_the_new_instance([trial.gateway], decided)
        steps = [
            step("decided", decided, began),
            *told(status, began, rolling="rolling back", back=f"{trial.gateway} back on known-good"),
            DrillStep(what="the last user met it", seconds=round(max(0.0, safe - began.timestamp()), 1)),
        ]
        return sorted(steps, key=lambda one: one.seconds)

    # --- failures of what watches --------------------------------------------------

    async def metrics_down(self) -> list[DrillStep]:
        """No metrics: nobody is blamed, nothing is promoted, and it goes on when they are back."""
        trial = await self.rehearsal.on_trial(self.lab.newer, "drill")
        await asyncio.sleep(5)
        began = datetime.now(UTC)
        async with self.days.prometheus_killed():
            held = await self.rehearsal.until(lambda seen: _decided(seen, Action.HOLD))
        mended = datetime.now(UTC)
        again = await self.rehearsal.until(lambda seen: _decided(seen, Action.CONTINUE))
        steps = [
            step("held", verdict_at(held), began),
            step("metrics are back", mended, began),
            step("the judge goes on", verdict_at(again), began),
        ]
        return steps + await self._ordered_back(trial, began)

    # --- failures of penstock itself -----------------------------------------------

    async def worker_killed(self) -> list[DrillStep]:
        """The orchestrator's worker dies while a canary is watched."""
        return await self._ended(Fault.WORKER_KILLED)

    async def engine_killed(self) -> list[DrillStep]:
        """The engine dies while a canary is watched."""
        return await self._ended(Fault.ENGINE_KILLED)

    async def agent_killed(self) -> list[DrillStep]:
        """The canary's agent dies."""
        return await self._ended(Fault.AGENT_KILLED)

    async def _ended(self, fault: Fault) -> list[DrillStep]:
        trial = await self.rehearsal.on_trial(self.lab.newer, "drill")
        began = datetime.now(UTC)
        self.faults.strike(fault, trial.gateway)
        await asyncio.sleep(SUPERVISOR)
        self.faults.mend(fault, trial.gateway)
        started = step("started again", datetime.now(UTC), began)
        await self.lab.status()
        answers = step("status answers", datetime.now(UTC), began)
        return [started, answers, *await self._ordered_back(trial, began)]

    async def worker_frozen(self) -> list[DrillStep]:
        """The orchestrator's worker stops in its tracks and wakes up when another has its place."""
        steps = await self._ended(Fault.WORKER_FROZEN)
        self.faults.thaw()
        await asyncio.sleep(SUPERVISOR)
        self.faults.tidy()
        return steps

    # --- failures of a gateway's host ----------------------------------------------

    async def control_plane_cut(self) -> list[DrillStep]:
        """The canary's host is cut off from everything that could confirm its trial."""
        trial = await self.rehearsal.on_trial(self.lab.newer, "drill")
        began = datetime.now(UTC)
        with cut_off(self.lab, self._host(trial)):
            ended = await self._lease_ended(trial, began)
        connected = step("connected again", datetime.now(UTC), began)
        return [ended, connected, *await self._ordered_back(trial, began)]

    async def nft_refuses(self) -> list[DrillStep]:
        """The canary's kernel takes no change of its steering table while a person orders the way back."""
        trial = await self.rehearsal.on_trial(self.lab.newer, "drill")
        return await self._back_in_spite_of(nft_refuses(self.lab, trial.gateway), trial)

    async def disk_full(self) -> list[DrillStep]:
        """The canary's agent can write nothing down while a person orders the way back."""
        trial = await self.rehearsal.on_trial(self.lab.newer, "drill")
        return await self._back_in_spite_of(no_room(self.lab.agents[trial.gateway]), trial)

    async def nftables_flushed(self) -> list[DrillStep]:
        """Something on the canary's host removes every table of its firewall."""
        trial = await self.rehearsal.on_trial(self.lab.newer, "drill")
        began = datetime.now(UTC)
        flush_nftables(self._host(trial))
        await self._until(lambda: map_of(self._host(trial), "steer"), "the table was never loaded again")
        loaded = step("the agent loaded its table again", datetime.now(UTC), began)
        return [loaded, *await self._ordered_back(trial, began)]

    # --- disasters -----------------------------------------------------------------

    async def rollback_after_promotion(self) -> list[DrillStep]:
        """A person takes the whole fleet back after its new release was promoted."""
        return await Disasters(self.lab, self.rehearsal).rollback_after_promotion()

    async def control_plane_lost(self) -> list[DrillStep]:
        """Engine, worker, relay and API die at once while a canary is on trial."""
        return await Disasters(self.lab, self.rehearsal).control_plane_lost()

    async def host_rebooted(self) -> list[DrillStep]:
        """The canary's host loses everything that ran on it, and comes back in another boot."""
        disasters = Disasters(self.lab, self.rehearsal)
        steps = await disasters.host_rebooted()
        self.own_losses = disasters.own_losses
        return steps

    async def agent_stolen(self) -> list[DrillStep]:
        """Somebody has a copy of a gateway's certificate and key, and asks every relay with it."""
        return await Disasters(self.lab, self.rehearsal).agent_stolen()

    # --- orders --------------------------------------------------------------------

    async def rollback_by_chat(self) -> list[DrillStep]:
        """A person takes the canary back in a room of a chat."""
        return await rollback_by_chat(self.lab, self.rehearsal)

    async def _back_in_spite_of(self, trouble: AbstractContextManager[None], trial: Trial) -> list[DrillStep]:
        """Order the way back in the middle of the trouble: the kernel's lease does what the agent cannot."""
        began = datetime.now(UTC)
        with trouble:
            await self.lab.roll_back("drill", "it is rehearsed")
            ordered = step("a person orders the way back", datetime.now(UTC), began)
            ended = await self._lease_ended(trial, began)
            status = await self.rehearsal.until(lambda seen: bool(seen.incomplete))
            heard = said(status, "ROLLBACK INCOMPLETE")
            if heard is None:
                raise Unavailable(f"nobody was told that the way back is incomplete: {status.why}")
            heard_of = step("told: ROLLBACK INCOMPLETE", heard, began)
        mended = step("mended", datetime.now(UTC), began)
        status = await self.rehearsal.until(lambda _: False)
        back = told(status, began, back=f"{trial.gateway} back on known-good")
        return [*sorted([ordered, ended, heard_of], key=lambda one: one.seconds), mended, *back]

    async def _lease_ended(self, trial: Trial, began: datetime) -> DrillStep:
        await self._until(
            lambda: not map_of(self._host(trial), "trial"), f"the lease of {trial.gateway} never ended"
        )
        return step("the kernel sent new sessions back", datetime.now(UTC), began)

    @staticmethod
    async def _until(is_so: Callable[[], bool], else_: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            if time.monotonic() > deadline:
                raise Unavailable(else_)
            await asyncio.sleep(0.1)

    def _host(self, trial: Trial) -> Host:
        return next(host for host in self.lab.topology.gateways if host.name == trial.gateway)

    async def _ordered_back(self, trial: Trial, began: datetime) -> list[DrillStep]:
        """Let a person end it, and see that it ends."""
        ordered = step("a person orders the way back", datetime.now(UTC), began)
        status = await self.rehearsal.end()
        return [ordered, *told(status, began, back=f"{trial.gateway} back on known-good")]


PLAYS: dict[str, Callable[[Stage], Awaitable[list[DrillStep]]]] = {
    "bad-logins": Stage.bad_logins,
    "crash": Stage.crash,
    "metrics-down": Stage.metrics_down,
    "worker-killed": Stage.worker_killed,
    "engine-killed": Stage.engine_killed,
    "agent-killed": Stage.agent_killed,
    "worker-frozen": Stage.worker_frozen,
    "control-plane-cut": Stage.control_plane_cut,
    "nft-refuses": Stage.nft_refuses,
    "disk-full": Stage.disk_full,
    "nftables-flushed": Stage.nftables_flushed,
    "rollback-after-promotion": Stage.rollback_after_promotion,
    "control-plane-lost": Stage.control_plane_lost,
    "host-rebooted": Stage.host_rebooted,
    "agent-stolen": Stage.agent_stolen,
    "rollback-by-chat": Stage.rollback_by_chat,
}
"""How each drill that there is, is played."""

IN_A_CHAT = frozenset({"rollback-by-chat"})
"""Those that need a homeserver, which is installed before a lab is built."""


async def rehearse(name: str) -> DrillReport:
    """Build a lab, play the drill on it, and remove the lab; what went wrong while it was played is told.

    Raises:
        Unavailable: What the drill needs beside a lab is not here and cannot be installed; nothing was built.
    """
    if name in IN_A_CHAT:
        synapse.ensure(_tell)
    shape = Shape(
        prefix="psd-",
        folder="lab-drill",
        gateways=GATEWAYS,
        sites=GATEWAYS,
        metrics_port=DOOR_PORT,
        chat=name in IN_A_CHAT,
    )
    async with lab(_tell, shape) as built, Door(built).open() as door:
        stage, before, began = Stage(built, door), built.figures()["lost"], datetime.now(UTC)
        steps, failure = list[DrillStep](), None
        try:
            steps = await PLAYS[name](stage)
        except PenstockError as error:
            failure = sentence(f"{error.code}: {error}")
        lost = max(0, built.figures()["lost"] - before - stage.own_losses)
    return DrillReport(
        name=name,
        began=began,
        budget=DRILLS[name].budget.total_seconds(),
        steps=tuple(steps),
        sessions_lost=lost,
        failure=failure,
    )


def _decided(status: ChangeStatus, action: Action) -> bool:
    return status.decision is not None and status.decision.action is action


def _tell(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


def _show(report: DrillReport) -> None:
    table = Table(title=f"{report.name}: {DRILLS[report.name].summary}", title_justify="left")
    table.add_column("step")
    table.add_column("seconds after", justify="right")
    for one in report.steps:
        table.add_row(one.what, f"{one.seconds:.1f}")
    console = Console(markup=False, highlight=False)
    console.print(table)
    said = {"report": report.model_dump(mode="json"), "outcome": report.outcome, "seconds": report.seconds}
    console.print(run_line(said))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="penstock drill", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="say what can be rehearsed")
    run = verbs.add_parser("run", help="rehearse it on a lab")
    run.add_argument("name", help=", ".join(DRILLS))
    run.add_argument("--json", type=Path, help="write the seconds to this file")
    chosen = parser.parse_args(arguments)
    if chosen.verb == "run" and chosen.name not in DRILLS:
        raise BadInput(f"there is no drill {chosen.name!r}; there are {', '.join(DRILLS)}")
    return chosen


def main(arguments: Sequence[str]) -> int:
    """List the drills or run one; 0 when users were safe within its budget."""
    chosen = _parse(arguments)
    if chosen.verb == "list":
        for name, drill in DRILLS.items():
            sys.stdout.write(f"{name:26}{drill.summary}; safe within {drill.budget.total_seconds():.0f} s\n")
        return ExitCode.DONE
    report = asyncio.run(rehearse(chosen.name))
    _show(report)
    passed = report.outcome is DrillOutcome.PASSED
    if chosen.json:
        document = report.model_dump(mode="json") | {"passed": passed}
        chosen.json.write_text(json.dumps(document, indent=1) + "\n")
    return ExitCode.DONE if passed else ExitCode.INTERNAL


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell's background job would ignore the second
        signal.signal(number, signal.default_int_handler)
    try:
        code = main(sys.argv[1:])
    except PenstockError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        code = error.exit_code
    except KeyboardInterrupt:
        code = ExitCode.DETACHED
    leave(int(code))
