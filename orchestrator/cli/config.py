"""Commands about settings: what daemons say in place of their release, as the fleet's file has it."""

import sys
from typing import Annotated, Any

import typer

from orchestrator.cli.client import Api
from orchestrator.cli.following import begun_line, code_of_begun, follow_begun
from orchestrator.cli.output import Output, OutputOption, emit, say
from orchestrator.cli.tree import group
from orchestrator.cli.words import FleetName, Key, Reason, Wait, fleet_of
from orchestrator.words.plans import plan_lines

app = group("Settings of the fleet's file, such as dns and route, put on running instances.")


@app.command("plan")
def plan(fleet: FleetName = None, output: OutputOption = Output.TABLE) -> None:
    """Print which settings and pools would change on which gateways, and who approves; none is changed."""
    api = Api()
    found = _planned(api, fleet_of(api, fleet))
    emit(output, "Plan", found, lambda: say(*plan_lines(found)), names=[found["digest"]])


@app.command("start")
def start(
    reason: Reason,
    fleet: FleetName = None,
    plan_digest: Annotated[str | None, typer.Option("--plan", help="start only this plan")] = None,
    wait: Wait = False,
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Give what runs the settings and pools of the fleet's file, what drains as well; nobody is logged out.

    One gateway goes first. Where nobody could log in any more, what was there before is put back by itself.
    """
    api = Api()
    name = fleet_of(api, fleet)
    if plan_digest is None:
        made = _planned(api, name)
        plan_digest = made["digest"]
        sys.stderr.write("\n".join(plan_lines(made)[:-1]) + "\n")
    body = {"reason": reason, "plan": plan_digest}
    begun = api.surveying().post("fleets", name, "settings", body=body, key=key)
    if wait:
        code = follow_begun(api, name, begun, output)
        if output is Output.TABLE:
            say(api.get("fleets", name)["change"]["why"])
        raise typer.Exit(code)
    sys.stderr.write(begun_line(name, begun) + "\n")
    emit(output, "Change", begun, lambda: None, names=[begun["change"] or name])
    raise typer.Exit(code_of_begun(begun))


def _planned(api: Api, fleet: str) -> Any:
    return api.surveying().post("fleets", fleet, "settings", "plan", body={})
