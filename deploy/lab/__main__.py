"""`./run demo`: builds the lab, tells its stories, shows what they proved, and leaves nothing behind."""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from deploy.lab import synapse
from deploy.lab.containers import Containers
from deploy.lab.daemons.products import DAEMONS
from deploy.lab.ground import Hosts, Tell
from deploy.lab.lab import DEMO, Shape, lab
from deploy.lab.night import Night
from deploy.lab.screen import Screen
from deploy.lab.stories import Storyteller, Told, write_json
from orchestrator.exit_code import ExitCode
from orchestrator.processes.leaving import leave
from policies.model.change import Outcome
from policies.model.errors import BadInput, PenstockError
from policies.model.fleet import SteeringKind

STORIES = ("clean", "bad-auth", "bad-signature", "blue-green", "bad-green", "green-back", "night")
USUAL = ("clean", "bad-auth")
RUNTIMES = ("host", "podman", "kubernetes")
FULL_LOGINS_PER_SECOND = 1.0
"""At each gateway where each login is a full handshake of a real client: all of them share this machine."""
ENDS_AS = {
    "clean": Outcome.PROMOTED,
    "bad-auth": Outcome.ROLLED_BACK,
    "bad-signature": Outcome.REFUSED,
    "blue-green": Outcome.PROMOTED,
    "bad-green": Outcome.ROLLED_BACK,
    "green-back": Outcome.ROLLED_BACK,
    "night": Outcome.ROLLED_BACK,
}


BECAUSE = {"bad-auth": "unhealthy", "bad-green": "unhealthy", "night": "unhealthy"}
"""Verdicts that a story has to end by: another reason to go back proves nothing about its fault."""


STEERINGS: tuple[SteeringKind, ...] = ("nftables", "redirect", "haproxy")
"""What the lab's gateways can be steered by."""


@dataclass(frozen=True)
class Asked:
    """What to show: which stories, on what kind of gateways, and where to write what was proved."""

    stories: tuple[str, ...] = USUAL
    runtime: str = "host"
    daemon: str = "ocserv"
    steering: SteeringKind = "nftables"
    report: Path | None = None


def parse(arguments: Sequence[str]) -> Asked:
    """Return what is asked for.

    Raises:
        BadInput: an unknown scenario or runtime, a story that is not told there, or a file that cannot be
            written.
    """
    parser = argparse.ArgumentParser(prog="./run demo", description=__doc__)
    names, runtimes = ", ".join(STORIES), ", ".join(RUNTIMES)
    parser.add_argument("--scenario", action="append", help=f"tell this story, or these in turn: {names}")
    parser.add_argument("--runtime", default="host", help=f"what gateways' instances are on: {runtimes}")
    parser.add_argument("--daemon", default="ocserv", help=f"what gateways run: {', '.join(DAEMONS)}")
    parser.add_argument("--steering", default="nftables", help=f"what steers: {', '.join(STEERINGS)}")
    parser.add_argument("--json", type=Path, help="write what was proved to this file")
    chosen = parser.parse_args(arguments)
    if chosen.runtime not in RUNTIMES:
        raise BadInput(f"there is no runtime {chosen.runtime!r}; there are {runtimes}")
    if chosen.daemon not in DAEMONS:
        raise BadInput(f"there is no daemon {chosen.daemon!r}; there are {', '.join(DAEMONS)}")
    if chosen.daemon != "ocserv" and chosen.runtime != "host":
        raise BadInput(f"{chosen.daemon} is shown on hosts only; leave --runtime out")
    if chosen.steering not in STEERINGS:
        raise BadInput(f"there is no steering {chosen.steering!r}; there are {', '.join(STEERINGS)}")
    if chosen.steering != "nftables" and (chosen.runtime, chosen.daemon) != ("host", "ocserv"):
        raise BadInput(
            f"{chosen.steering} is shown with ocserv on hosts only; leave --runtime and --daemon out"
        )
    for unknown in [name for name in chosen.scenario or () if name not in STORIES]:
        raise BadInput(f"there is no scenario {unknown!r}; there are {names}")
    if chosen.json is not None and not chosen.json.absolute().parent.is_dir():
        raise BadInput(f"{chosen.json} cannot be written: its folder does not exist")
    if chosen.runtime != "host" and "night" in (chosen.scenario or ()):
        raise BadInput("the story night is told on hosts only; leave --runtime out")
    return Asked(tuple(chosen.scenario or USUAL), chosen.runtime, chosen.daemon, chosen.steering, chosen.json)


def ground_of(runtime: str, tell: Tell) -> tuple[Shape, Hosts]:
    """Return the usual lab of that kind of gateways, once all that it is made of is here.

    Raises:
        Unavailable: The programs of a cluster are not here and cannot be built; the sentence says why.
    """
    if runtime == "host":
        return DEMO, Hosts()
    if runtime == "podman":
        return DEMO, Containers()
    from deploy.cluster import programs  # noqa: PLC0415 - who shows hosts needs nothing of a cluster
    from deploy.cluster.lab import NODES, Nodes  # noqa: PLC0415 - as above

    programs.ensure(*programs.NODES, "helm", tell=tell)
    return NODES, Nodes()


async def demo(asked: Asked) -> int:
    """Tell the stories; return the exit code: 0 when each ended as it should."""
    began, stories, report = time.monotonic(), asked.stories, asked.report
    with Screen() as screen:
        at_night = "night" in stories
        if at_night:
            synapse.ensure(screen.tell)
        shape, ground = ground_of(asked.runtime, screen.tell)
        shape = replace(shape, daemon=asked.daemon, steering=asked.steering)
        if asked.daemon != "ocserv":
            shape = replace(shape, logins_per_second=FULL_LOGINS_PER_SECOND)
        async with lab(screen.tell, replace(shape, chat=at_night), ground) as built:
            screen.tell(f"look at it in a browser: {await built.page_link()}")
            teller = Storyteller(built, screen)
            tellings = {
                "clean": teller.clean,
                "bad-auth": teller.bad_auth,
                "bad-signature": teller.bad_signature,
                "blue-green": teller.blue_green,
                "bad-green": teller.bad_green,
                "green-back": teller.green_back,
                "night": Night(built, screen).tell,
            }
            told = [await tellings[story]() for story in stories]
        screen.print(summary(told))
        screen.tell(f"the lab is removed; all of it took {time.monotonic() - began:.0f} s")
        screen.tell("next: ./run lab up, to try it yourself; README.md")
    if report:
        await asyncio.to_thread(report.write_text, write_json(told))
    return exit_code(stories, told)


def exit_code(stories: Sequence[str], told: Sequence[Told]) -> int:
    """Return 0 when every story ended as it should; a story told alone ends as its command would."""
    as_they_should = all(
        story.outcome is ENDS_AS[story.name]
        and story.decision["verdict"] == BECAUSE.get(story.name, story.decision["verdict"])
        and not story.sessions_lost
        and all((story.seen or {}).values())
        for story in told
    )
    if not as_they_should:
        return ExitCode.INTERNAL
    refused_alone = tuple(stories) == ("bad-signature",)
    return ExitCode.REFUSED if refused_alone else ExitCode.DONE


def summary(told: Sequence[Told]) -> Table:
    """Return the short table at the end."""
    table = Table(title="What the stories proved", title_justify="left")
    table.add_column("")
    for story in told:
        table.add_column(story.name)
    rows = {
        "outcome": [story.outcome.replace("_", " ") for story in told],
        "sessions before, after": [f"{s.sessions_before}, {s.sessions_after}" for s in told],
        "sessions lost": [str(story.sessions_lost) for story in told],
        "pings sent, lost": [f"{story.pings_sent}, {story.pings_lost}" for story in told],
        "fault to decision": [_seconds(story, "fault_to_decision") for story in told],
        "decision to last bad login": [_seconds(story, "decision_to_steered") for story in told],
        "why": [str(story.decision["reason"]) for story in told],
        "signed by": [", ".join(story.signers) for story in told],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _seconds(story: Told, what: str) -> str:
    seconds = story.seconds[what]
    return f"{seconds:.1f} s" if story.outcome is Outcome.ROLLED_BACK else "-"


def main() -> None:
    """Run the demo and end the process with its exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell's background job would ignore the second
        signal.signal(number, signal.default_int_handler)
    try:
        code = asyncio.run(demo(parse(sys.argv[1:])))
    except PenstockError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        code = error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the lab is removed\n")
        code = ExitCode.DETACHED
    leave(int(code))


if __name__ == "__main__":
    main()
