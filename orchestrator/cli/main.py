"""The command line's tree: it asks the API and shows the answers; only offline tools do without."""

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli import (
    adopt,
    agent,
    back,
    bundle,
    chat,
    check,
    config,
    desired,
    doctor,
    drain,
    explain,
    gateway,
    handover,
    login,
    notice,
    page,
    process,
    reload,
    report,
    runbook,
    safely,
    snapshot,
    token,
    window,
)
from orchestrator.cli.client import Api, Problem
from orchestrator.cli.following import begun_line, code_of_begun, code_of_fleet, follow_begun, watch_fleet
from orchestrator.cli.output import Output, OutputOption, console, emit, print_table, say, say_as_of
from orchestrator.cli.receipts import end_with_receipt
from orchestrator.cli.screens import fleet_frame, history_lines
from orchestrator.cli.tree import CHANGE, RUN, SEE, STOP, TOOLS, Tree, group
from orchestrator.cli.words import FleetName, Key, Reason, Wait, completed_releases, fleet_of
from orchestrator.exit_code import ExitCode
from orchestrator.words.decisions import vote_lines
from orchestrator.words.plans import plan_lines
from orchestrator.words.standing import as_of, fleet_notices, missing_lines, on_line, taking_line

app = typer.Typer(
    name="penstock",
    help="Upgrade fleets of VPN gateways without their users noticing.",
    epilog=(
        "Ends with 0 done or well, 1 internal, 2 bad usage, 3 rolled back and safe, 4 not allowed, "
        "5 refused, 6 held, 7 rollback incomplete, 8 the wait is over, 9 conflict, 10 differences, "
        "130 detached."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=Tree,
)
upgrade = group("Start an upgrade.")
fleets = group("Which fleets there are; begin one.")
app.add_typer(upgrade, name="upgrade", rich_help_panel=CHANGE)
app.add_typer(fleets, name="fleet", rich_help_panel=SEE)
app.add_typer(gateway.app, name="gateway", rich_help_panel=CHANGE)
app.add_typer(handover.app, name="handover", rich_help_panel=CHANGE)
app.add_typer(drain.app, name="drain", rich_help_panel=CHANGE)
app.add_typer(reload.app, name="credentials", rich_help_panel=CHANGE)
app.add_typer(config.app, name="config", rich_help_panel=CHANGE)
app.add_typer(report.app, name="report", rich_help_panel=SEE)
app.add_typer(runbook.app, name="runbook", rich_help_panel=SEE)
app.add_typer(snapshot.app, name="snapshot", rich_help_panel=SEE)
app.add_typer(notice.app, name="notice", rich_help_panel=SEE)
app.add_typer(window.app, name="window", rich_help_panel=SEE)
app.add_typer(token.app, name="token", rich_help_panel=TOOLS)
app.add_typer(agent.app, name="agent", rich_help_panel=RUN)
fleets.command("adopt")(adopt.adopt)
fleets.command("hand-back")(adopt.hand_back)
app.command("check", rich_help_panel=TOOLS)(check.check)
app.command("verify-bundle", rich_help_panel=TOOLS)(bundle.verify_bundle)
app.command("doctor", rich_help_panel=SEE)(doctor.doctor)
app.command("explain", rich_help_panel=SEE)(explain.explain)
app.command("login", rich_help_panel=TOOLS)(login.login)
app.command("logout", rich_help_panel=TOOLS)(login.logout)
app.command("page", rich_help_panel=SEE)(page.page)
app.command("rollback", rich_help_panel=STOP)(back.rollback)
app.add_typer(chat.app, name="chat", rich_help_panel=RUN)
app.command("approve", rich_help_panel=CHANGE)(back.approve)
app.command("reject", rich_help_panel=CHANGE)(back.reject)
app.command("diff", rich_help_panel=SEE)(desired.diff)
app.command("apply", rich_help_panel=CHANGE)(desired.apply)
app.command("unpin", rich_help_panel=CHANGE)(desired.unpin)
app.command("sessions", rich_help_panel=SEE)(drain.sessions)
app.command("drains", rich_help_panel=SEE)(drain.drains)

OFFLINE = {
    "release": ("Releases: make, sign, add, verify and withdraw them.", TOOLS),
    "judge": ("Check gate policies, and what they would have done.", TOOLS),
    "audit": ("The audit record: who did what, and whether it is whole.", TOOLS),
    "ledger": ("The ledger: backed up, restored, rebuilt.", TOOLS),
    "keys": ("Keys of the API and of relays that have files of their own.", TOOLS),
    "monitoring": ("Monitoring: what Prometheus scrapes.", TOOLS),
    "cluster": (
        "For a Kubernetes cluster: the driver of a fleet's instances there, and its certificate.",
        RUN,
    ),
    "drill": ("Rehearse failures on a lab, with the seconds of every step; see who did when.", TOOLS),
}
"""Groups that need more than the API: they are loaded when one of them is meant, and named always."""

Release = Annotated[
    str,
    typer.Option(
        "--to", help="the release: digest, its beginning, or version", autocompletion=completed_releases
    ),
]
Strategy = Annotated[str, typer.Option("--strategy", help="canary, rolling or blue_green")]


def _meant() -> str:
    """Return the group that this process was started for, or completes."""
    words = os.environ.get("COMP_WORDS", "").split() if "_PENSTOCK_COMPLETE" in os.environ else sys.argv
    return words[1] if len(words) > 1 else ""


def add_offline_groups(meant: str) -> None:
    """Give the tree its groups that are loaded only when they are meant."""
    for name, (text, panel) in OFFLINE.items():
        if name == meant:
            found: typer.Typer = importlib.import_module(f"orchestrator.cli.{name}").app
        else:
            found = group(text)
        app.add_typer(found, name=name, rich_help_panel=panel)


add_offline_groups(_meant())


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - only who asks for it waits for it

        say(f"penstock {version('penstock')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="say which penstock this is")
    ] = False,
) -> None:
    """Upgrade fleets of VPN gateways without their users noticing."""
    del version


# --- see ---------------------------------------------------------------------------------


@app.command(rich_help_panel=SEE)
def whoami(output: OutputOption = Output.TABLE) -> None:
    """Say who you are here, and what you may do on which fleet."""
    found = Api().get("whoami")

    def table() -> None:
        say(found["person"] + (" (a machine)" if found["machine"] else ""))
        for fleet, roles in sorted(found["roles"].items()):
            say(f"  {'every fleet' if fleet == '*' else fleet}: {', '.join(sorted(roles))}")

    emit(output, "Caller", found, table, names=[found["person"]])


@app.command(rich_help_panel=SEE)
def status(fleet: FleetName = None, output: OutputOption = Output.TABLE) -> None:
    """Say what is happening, to how many users, why, what comes next and what you can do.

    The exit code is the first of these that is true: 7 when a rollback is incomplete, 6 when any line needs
    you, 5 when the last change was refused, 3 when it was rolled back or aborted, 0 otherwise.
    """
    api = Api()
    found = api.get("fleets", fleet_of(api, fleet))
    emit(
        output,
        "FleetStatus",
        found,
        lambda: console().print(fleet_frame(found)),
        names=[found["change"]["rollout"]] if found["change"] else [],
    )
    raise typer.Exit(code_of_fleet(found))


@app.command(rich_help_panel=SEE)
def watch(fleet: FleetName = None, output: OutputOption = Output.TABLE) -> None:
    """Follow a change live until it ends; Ctrl-C detaches and changes nothing.

    While no change is under way, the command prints what the fleet is on and ends as the last change ended.
    """
    api = Api()
    raise typer.Exit(watch_fleet(api, fleet_of(api, fleet), output))


@app.command(rich_help_panel=SEE)
def history(
    fleet: FleetName = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="how many changes")] = 20,
    before: Annotated[str | None, typer.Option("--before", help="only changes older than this one")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the fleet's changes and what is left of each today, the newest first."""
    api = Api()
    rows = api.get("fleets", fleet_of(api, fleet), "changes", limit=limit, before=before)["changes"]

    def table() -> None:
        out = console()
        for line in history_lines(rows):
            out.print(line)
        if not rows:
            say("No change yet.")

    emit(output, "ChangeList", rows, table, rows=rows, names=[row["name"] for row in rows])


@fleets.command("list")
def list_fleets(output: OutputOption = Output.TABLE) -> None:
    """List the fleets where you have a role."""
    names = Api().get("fleets")["fleets"]
    emit(output, "FleetList", names, lambda: say(*(names or ["You see no fleet."])), rows=names, names=names)


@fleets.command("show")
def show_fleet(fleet: FleetName = None, output: OutputOption = Output.TABLE) -> None:
    """Show what a fleet is on and what was done to it last."""
    api = Api()
    name = fleet_of(api, fleet)
    found = api.get("fleets", name)
    standing = found["standing"]

    def table() -> None:
        say(f"{name} {on_line(standing)}, {taking_line(standing)}{as_of(standing)}")
        for label, line in (*fleet_notices(found), *missing_lines(found)):
            say(f"  {label.upper()}  {line}")
        if found["change"]:
            say(f"  last change: {found['change']['rollout']}: {found['change']['what']}")

    emit(output, "FleetStatus", found, table, names=[name])


@fleets.command("drift")
def show_drift(fleet: FleetName = None, output: OutputOption = Output.TABLE) -> None:
    """Name where what runs, fleet.yaml and the agents' own files differ; ends with 10 when something does."""
    api = Api()
    name = fleet_of(api, fleet)
    found = api.surveying().get("fleets", name, "drift")
    rows, silent = found["differences"], found["silent"]

    def table() -> None:
        compared = f"Nothing differs on the {found['gateways']} gateways of {name} that answered."
        columns = [(row["gateway"], row["sentence"]) for row in rows]
        print_table(("GATEWAY", "DIFFERENCE"), columns, compared)
        say_as_of(found)
        if found["count"] > len(rows):
            say(f"{found['count'] - len(rows)} more differences are not shown.")
        if silent:
            say(f"Silent, so not compared: {', '.join(silent[:10])}{' and others' if silent[10:] else ''}")

    emit(output, "Drift", found, table, rows=rows, names=[row["gateway"] for row in rows])
    raise typer.Exit(ExitCode.DIFFERENCES if rows else ExitCode.HELD if silent else ExitCode.DONE)


# --- change ------------------------------------------------------------------------------


@app.command(rich_help_panel=CHANGE)
def plan(
    fleet: FleetName = None,
    to: Annotated[str | None, typer.Option("--to", help="the release to plan for")] = None,
    strategy: Strategy = "canary",
    made: Annotated[str | None, typer.Option("--plan", help="show a plan that was made")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print what an upgrade would do, to whom, and how long it takes; no gateway is changed."""
    api = Api()
    if (to is None) == (made is None):
        sentence = "say --to RELEASE for a new plan, or --plan DIGEST for one that was made"
        raise Problem("BadInput", sentence, exit_code=2)
    found = api.get("plans", made) if made else _plan(api, fleet_of(api, fleet), str(to), strategy)
    emit(output, "Plan", found, lambda: say(*plan_lines(found)), names=[found["digest"]])


def _plan(api: Api, fleet: str, to: str, strategy: str) -> Any:
    return api.surveying().post(
        "plans", body={"fleet": fleet, "to": to, "strategy": strategy.replace("-", "_")}
    )


@fleets.command("install")
def install(
    to: Release,
    fleet: FleetName = None,
    reason: Annotated[str, typer.Option("--reason", help="why, for the history")] = "first installation",
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Bring up gateways that serve nobody yet; those that serve are left alone."""
    api = Api()
    name = fleet_of(api, fleet)
    body = {"to": to, "reason": reason}
    begun = api.surveying().post("fleets", name, "install", body=body, key=key)
    code = follow_begun(api, name, begun, output)
    if output is Output.TABLE:
        say(api.get("fleets", name)["change"]["why"])
    raise typer.Exit(code)


@upgrade.command("start")
def start(
    to: Release,
    reason: Reason,
    fleet: FleetName = None,
    strategy: Strategy = "canary",
    plan_digest: Annotated[str | None, typer.Option("--plan", help="start only this plan")] = None,
    wait: Wait = False,
    even_if_unusual: Annotated[
        bool, typer.Option("--even-if-unusual", help="also in an hour that is not like those of past weeks")
    ] = False,
    at: Annotated[
        str, typer.Option("--at", help="now, or window: where nothing may start now, it waits for that")
    ] = "now",
    override_window: Annotated[
        bool,
        typer.Option("--override-window", help="in an emergency, outside of every window; with --ticket"),
    ] = False,
    ticket: Annotated[
        str | None, typer.Option("--ticket", help="of the emergency for which windows are overridden")
    ] = None,
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Start an upgrade of the fleet; one change of a fleet at a time."""
    api = Api()
    if at not in {"now", "window"}:
        raise Problem("BadInput", f"--at {at} is not understood; say now or window", exit_code=2)
    if override_window != (ticket is not None):
        sentence = (
            "say --override-window and --ticket ID together: an override is for an emergency with a ticket"
        )
        raise Problem("BadInput", sentence, exit_code=2)
    name = fleet_of(api, fleet)
    if plan_digest is None:
        made = _plan(api, name, to, strategy)
        plan_digest = made["digest"]
        if output is Output.TABLE:
            say(*plan_lines(made)[:-1])
    body = {
        "fleet": name,
        "to": to,
        "strategy": strategy.replace("-", "_"),
        "reason": reason,
        "plan": plan_digest,
        "even_if_unusual": even_if_unusual,
        "in_window": at == "window",
        "overrides_windows": ticket,
    }
    begun = api.surveying().post("changes", body=body, key=key)
    if wait:
        raise typer.Exit(follow_begun(api, name, begun, output))
    sys.stderr.write(begun_line(name, begun) + "\n")
    emit(output, "Change", begun, lambda: None, names=[begun["change"] or name])
    raise typer.Exit(code_of_begun(begun))


def _command(fleet: str | None, body: dict[str, Any], key: str | None, output: Output) -> None:
    api = Api()
    receipt = api.post("fleets", fleet_of(api, fleet), "commands", body=body, key=key)
    end_with_receipt(receipt, output)


HoldOf = Annotated[
    str | None, typer.Option("--hold-of", metavar="PERSON", help="whose hold, when it is not your own")
]


@app.command(rich_help_panel=STOP)
def hold(
    reason: Reason, fleet: FleetName = None, key: Key = None, output: OutputOption = Output.TABLE
) -> None:
    """Hold a change where it is; harm is still looked for and rolled back.

    The exit code is 8 when the hold is only stored, because no worker has begun it: it is not in force yet.
    """
    _, receipt = safely.command(Api(), fleet, {"kind": "hold", "reason": reason}, key)
    end_with_receipt(receipt, output)


@app.command(rich_help_panel=CHANGE)
def resume(
    reason: Reason,
    fleet: FleetName = None,
    hold_of: HoldOf = None,
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Lift your own hold, or somebody else's by name; the change goes on when none is left.

    `--hold-of CHANGE.harm-N`, as the status names it, accepts the harm that was measured
    after a promotion. Upgrades of the fleet begin only after that, or after a rollback.
    """
    _command(fleet, {"kind": "resume", "reason": reason, "hold_of": hold_of}, key, output)


@app.command(rich_help_panel=CHANGE)
def promote(
    reason: Reason, fleet: FleetName = None, key: Key = None, output: OutputOption = Output.TABLE
) -> None:
    """Vote to pass the wave without proof; two operators have to.

    The command prints the verdict and its reasons. The vote is for these: it does not count if something else
    speaks against the wave by then.
    """
    api = Api()
    name = fleet_of(api, fleet)
    change, body = api.get("fleets", name)["change"], {"kind": "promote", "reason": reason}
    if change is not None and change["ballot"] is not None:
        sys.stderr.write("\n".join(vote_lines(change)) + "\n")
        body |= {"approves": change["ballot"], "change": change["rollout"]}
    _command(name, body, key, output)


@app.command(rich_help_panel=STOP)
def abort(
    reason: Reason, fleet: FleetName = None, key: Key = None, output: OutputOption = Output.TABLE
) -> None:
    """Stop before any session has moved; refused afterwards.

    The exit code is 8 when the order is only stored, because no worker has begun it.
    """
    _command(fleet, {"kind": "abort", "reason": reason}, key, output)


# --- run ---------------------------------------------------------------------------------


@app.command(rich_help_panel=RUN)
def serve(
    api_address: Annotated[
        str | None, typer.Option("--api", metavar="HOST:PORT", help="answer there, too, beside the socket")
    ] = None,
    prometheus: Annotated[
        str | None, typer.Option("--prometheus", metavar="URL", help="where readings come from")
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="FOLDER", help="where it keeps what it must not lose")
    ] = None,
) -> None:
    """Run an engine of your own, its worker and the API until Ctrl-C; for one machine."""
    said = {
        "PENSTOCK_API_ADDRESS": api_address,
        "PENSTOCK_PROMETHEUS_URL": prometheus,
        "PENSTOCK_STATE": state and str(state.absolute()),
    }
    given = {name: value for name, value in said.items() if value}
    if given.items() <= os.environ.items():
        process.run("serve")
        return
    # What is said here is read where every setting is: by a process that begins with it.
    program = [sys.executable, "-m", "orchestrator", "serve"]
    os.execve(sys.executable, program, os.environ | given)  # noqa: S606 - this program itself


@app.command(rich_help_panel=RUN)
def worker() -> None:
    """Run the orchestrator's worker until SIGTERM."""
    process.run("worker")


@app.command(rich_help_panel=RUN)
def api() -> None:
    """Run the API at the local socket until SIGTERM."""
    process.run("api")


@app.command(rich_help_panel=RUN)
def relay() -> None:
    """Run a relay until SIGTERM: where agents reach the engine, each its own gateway's queue."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before it is loaded: it has a line for each stranger
    process.run("relay")


@app.command(rich_help_panel=RUN)
def exporter(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="the file of the gateway's agent")],
) -> None:
    """Show a gateway's metrics to Prometheus until SIGTERM."""
    process.run("exporter", config)
