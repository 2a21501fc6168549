"""Commands that take a fleet back, and the second person's answer where the fleet's rules ask for one."""

import sys
from functools import partial
from typing import Annotated, Any

import typer

from orchestrator.cli import safely
from orchestrator.cli.client import Api, Problem
from orchestrator.cli.following import follow, not_named
from orchestrator.cli.output import Output, OutputOption, emit, say
from orchestrator.cli.receipts import end_with_receipt, exit_of, print_receipt
from orchestrator.cli.words import FleetName, Key, Reason, Wait, fleet_of, seconds
from orchestrator.exit_code import ExitCode
from orchestrator.words.plans import plan_lines
from orchestrator.words.text import printable
from orchestrator.words.times import moment

Within = Annotated[str, typer.Option("--timeout", help="how long --wait waits, for example 90s or 5m")]
Force = Annotated[
    bool, typer.Option("--force", help="end the running change first, also one that no worker can go on with")
]
ThisPlan = Annotated[str | None, typer.Option("--plan", help="the plan's digest, or the beginning of it")]
Of = Annotated[
    str | None,
    typer.Option(
        "--of", metavar="CHANGE", help="a reload or change of settings, whose files of before come back"
    ),
]
To = Annotated[str | None, typer.Option("--to", help="an earlier release instead of known-good")]
Settings = Annotated[bool, typer.Option("--settings", help="the last change of settings, and no release")]
Yes = Annotated[
    bool, typer.Option("--yes", help="act at once, whatever a rollback does by then, and print that after it")
]
CHANGED = "It does something else now than was shown, and nothing is done yet. "
SHOWN_TIMES = 3
"""How often a rollback that does something else than was shown is shown anew before it is bound no more."""
PREVIEW_SECONDS = 4.0
"""How long a rollback waits for what each gateway will serve."""


def rollback(  # an option each
    reason: Reason,
    fleet: FleetName = None,
    to: To = None,
    settings: Settings = False,
    of: Of = None,
    wait: Wait = False,
    timeout: Within = "5m",
    force: Force = False,
    yes: Yes = False,
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Roll back the release: every gateway goes to its known-good.

    It is possible while the change runs and for `limits.kept` after its promotion. Later `--to` names the
    release. A rollback that did not end well is completed at any time.

    The command prints which release each gateway will serve, then does exactly that without a question. If
    the answer has changed by then, nothing is done yet: the command prints the new answer. Only then, and
    before it goes below an upgrade that has gone back already, it asks on a terminal whether to go on, and
    elsewhere goes on. Settings have an option of their own. The exit code
    is 8 when the order is only stored, because no worker has begun it.
    """
    within, api = seconds(timeout), Api()
    body: dict[str, Any] = {"kind": "roll_back", "reason": reason, "to": to, "of": of, "force": force}
    body["settings"] = settings
    name, receipt = _as_shown(api, fleet, body, key, yes=yes)
    print_receipt(receipt, output)
    if not (wait and receipt["accepted"]):
        raise exit_of(receipt)
    if not api.answers():
        sys.stderr.write("No API says how it ends. When one does: penstock status " + name + "\n")
        raise typer.Exit(ExitCode.TIMED_OUT)
    change = receipt.get("change")
    if change is None:
        raise typer.Exit(not_named(name))
    code = follow(api, name, output, within, change)
    if code is ExitCode.ROLLBACK_INCOMPLETE:
        _name_the_missing(api, name, change)
    raise typer.Exit(code)


def _as_shown(
    api: Api, fleet: str | None, body: dict[str, Any], key: str | None, *, yes: bool
) -> tuple[str, Any]:
    """Give the rollback bound to what is printed of it; one that changes again and again is bound no more."""
    if yes:
        return safely.command(api, fleet, body, key)
    for _ in range(SHOWN_TIMES):
        try:
            return safely.command(api, fleet, body, key, before=partial(_bind_to_preview, key=key))
        except Problem as problem:
            if problem.code != "Conflict" or body.get("shown") is None:
                raise
            before = body["shown"]
            body["shown"] = _preview(fleet_of(api, fleet), body, CHANGED, but=before)
            if body["shown"] == before:
                raise
            asks = body["shown"] is not None and sys.stdin.isatty()  # nobody agrees to what is not shown
            if asks and not typer.confirm("Roll back so?", default=True, err=True):
                raise typer.Exit(ExitCode.CONFLICT) from None
    return safely.command(api, fleet, body | {"shown": None}, key)


def _bind_to_preview(fleet: str, body: dict[str, Any], *, key: str | None) -> None:
    """Print which release each gateway will serve, and bind the command to it.

    On a terminal it asks before it goes below an upgrade that has gone back already. What has a key may be a
    repeat, which does nothing anew.
    """
    if "shown" not in body:
        lead = "" if key is None else f"Unless {printable(key)} was ordered before: "
        body["shown"] = _preview(fleet, body, lead, asks=key is None)


def _preview(
    fleet: str, body: dict[str, Any], lead: str = "", *, but: str | None = None, asks: bool = False
) -> str | None:
    """Print which release each gateway will serve, and return the digest; None where it is not known.

    `but` is what was printed already, which is not printed again.
    """
    asked = {"to": body["to"], "of": body["of"]}
    asked |= {name: "true" for name in ("settings", "force") if body[name]}
    try:
        shown = Api(patience=PREVIEW_SECONDS).get("fleets", fleet, "rollback", **asked)
    except Problem as problem:
        if problem.code == "Unavailable":
            sys.stderr.write(
                f"Which release each gateway will serve is not known: {printable(str(problem))}\n"
            )
        return None
    digest: str = shown["digest"]
    if digest != but:
        sys.stderr.write(f"{lead}{fleet}: {printable(shown['sentence'])}.\n")
    further = asks and shown["below"] and sys.stdin.isatty()
    if further and not typer.confirm("Go further back?", default=None, err=True):
        raise typer.Exit(ExitCode.CONFLICT)
    return digest


def approve(
    reason: Reason,
    fleet: FleetName = None,
    plan: ThisPlan = None,
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say yes to a plan, or to a rollback that waits; nobody approves what they ask for themselves."""
    if plan is None:
        _answer("approve", reason, fleet, output, key)
        return
    api = Api()
    shown = api.get("plans", plan)
    name = fleet_of(api, fleet)
    if shown["fleet"] != name:
        raise Problem("Conflict", f"that is a plan of {shown['fleet']}, not of {name}", exit_code=9)
    sys.stderr.write("\n".join(plan_lines(shown)) + "\n")
    given = api.post("plans", shown["digest"], "approvals", body={"reason": reason}, key=key)
    told = f"{given['person']} approves it until {moment(given['expires_at'])}."
    emit(output, "Approval", given, lambda: say(told), names=[given["plan"]])


def reject(
    reason: Reason, fleet: FleetName = None, key: Key = None, output: OutputOption = Output.TABLE
) -> None:
    """Say no to a rollback that waits for a second person; nothing is changed."""
    _answer("reject", reason, fleet, output, key)


def _answer(kind: str, reason: str, fleet: str | None, output: Output, key: str | None) -> None:
    api = Api()
    name = fleet_of(api, fleet)
    change = api.get("fleets", name)["change"]
    if change is None or change["confirm"] is None:
        raise Problem("Conflict", f"nothing waits for an answer in {name}", exit_code=ExitCode.CONFLICT)
    shown = f"{kind.capitalize()}: {change['why']}; {change['users']}; to {change['version']}\n"
    sys.stderr.write(printable(shown.rstrip()) + "\n")
    body = {"kind": kind, "reason": reason, "approves": change["confirm"], "change": change["rollout"]}
    receipt = api.post("fleets", name, "commands", body=body, key=key)
    end_with_receipt(receipt, output)


def _name_the_missing(api: Api, fleet: str, name: str) -> None:
    """Print exactly which gateways are not back, and why, where people see it beside any other output."""
    change = api.get("changes", name)["status"]
    missing, ended = change["incomplete"], change["phase"] == "ended"
    more = change.get("more_incomplete", 0) if ended else change["not_back"] - len(change["waits_for"])
    count = "1 gateway is" if len(missing) + more == 1 else f"{len(missing) + more} gateways are"
    then = "the rollback ended without them" if ended else "penstock retries"
    lines = [f"ROLLBACK INCOMPLETE: {count} not back; {then}:"]
    lines += [f"  {printable(one)}" for one in missing]
    lines += [f"  and {more} more, which are in quarantine: penstock status {fleet} -o json"] if more else []
    sys.stderr.write("\n".join(lines) + "\n")
