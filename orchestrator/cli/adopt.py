"""Adopting gateways that serve by themselves, and handing them back to their own daemons."""

from typing import Annotated, Any

import typer

from orchestrator.cli.client import Api
from orchestrator.cli.following import follow_begun
from orchestrator.cli.output import Output, OutputOption, emit, say
from orchestrator.cli.words import Key, Reason
from orchestrator.exit_code import ExitCode

Fleet = Annotated[str, typer.Argument(help="the fleet")]
Gateways = Annotated[list[str] | None, typer.Argument(help="only these gateways; all without one")]


def adopt(
    fleet: Fleet,
    gateways: Gateways = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only say what serves them and what is in the way")
    ] = False,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="KEY", help="a line of its own configuration that may stay behind"),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="why, for the history")] = "adoption",
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Take over gateways that serve by themselves, as they run; nobody is moved and nothing restarts."""
    api, names = Api().surveying(), gateways or []
    if dry_run:
        found = api.get("fleets", fleet, "adoptable", gateways=",".join(names) or None)
        emit(output, "Examined", found, lambda: say(*_lines(found)), names=_names(found))
        return
    body = {"gateways": names, "without": without or [], "reason": reason}
    begun = api.post("fleets", fleet, "adopt", body=body, key=key)
    code = follow_begun(Api(), fleet, begun, output)
    if output is Output.TABLE:
        say(Api().get("fleets", fleet)["change"]["why"])
    raise typer.Exit(code)


def hand_back(
    fleet: Fleet,
    gateways: Annotated[list[str], typer.Argument(help="the gateways")],
    reason: Reason,
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Give gateways back to the daemons that were adopted on them and to their own units; sessions stay."""
    api = Api()
    body = {"gateways": gateways, "reason": reason}
    begun = api.post("fleets", fleet, "hand-back", body=body, key=key)
    code = follow_begun(api, fleet, begun, output)
    if code is ExitCode.ROLLED_BACK and output is Output.TABLE:
        say("Their own units start them at boot again; what each host did is in `penstock audit list`.")
    raise typer.Exit(ExitCode.DONE if code is ExitCode.ROLLED_BACK else code)


def _names(examined: dict[str, Any]) -> list[str]:
    """Return the gateways that nothing keeps from being adopted."""
    return [one["gateway"] for one in examined["found"] if not one["obstacles"]]


def _lines(examined: dict[str, Any]) -> list[str]:
    lines = [line for one in examined["found"] for line in _of_gateway(one)]
    return [*lines, *(f"{name}: silent: {why}" for name, why in sorted(examined["silent"].items()))]


def _of_gateway(found: dict[str, Any]) -> list[str]:
    """Return what serves the gateway, what is in the way, what would be lost, and slots for its files."""
    lines = [f"{found['gateway']}: {_daemon(found)}"]
    lines += [f"  in the way: {why}" for why in found["obstacles"]]
    if found["release"] is not None:
        lines.append(
            "  its logins are not counted, whatever its log has: the first upgrade is judged by limits alone"
        )
    if found["probe"]:
        lines.append(f"  the probe gets no tunnel here, and every upgrade needs one: {found['probe']}")
    lines += [
        f"  stays behind: line {line['number']}, {line['key']}: {line['reason']} (--without {line['key']})"
        for line in found["left_behind"]
    ]
    if found["slots"]:
        lines.append("  slots that are free beside it, for the files of the fleet and of the agent:")
    return lines + [f"    - {_slot(slot)}" for slot in found["slots"]]


def _daemon(found: dict[str, Any]) -> str:
    if found["release"] is None:
        return "nothing that can be adopted"
    count = found["sessions"]
    sessions = "an unknown number of sessions" if count is None else f"{count} sessions"
    unit = f", started by {found['unit']}" if found["unit"] else ", started by no unit of its host"
    what = f"{found['release']['product']} {found['release']['version']}, process {found['pid']}{unit}"
    return f"{what}, {sessions}, configured by {found['config'] or 'a file that was not found'}"


def _slot(slot: dict[str, Any]) -> str:
    """Return the slot as the files write it."""
    said = [f"{key}: {slot[key]}" for key in ("name", "port", "device", "pool4", "pool6") if slot.get(key)]
    return f"{{{', '.join(said)}}}"
