"""Commands about what instances let people in by: accounts, certificates, authorities, revocations."""

from typing import Annotated

import typer

from orchestrator.cli.client import Api
from orchestrator.cli.following import follow_begun
from orchestrator.cli.output import Output, OutputOption, say
from orchestrator.cli.tree import group
from orchestrator.cli.words import FleetName, Key, Reason, fleet_of

app = group("Accounts, certificates and revocations of the instances that run.")


@app.command("reload")
def reload(
    reason: Reason,
    fleet: FleetName = None,
    even_if_older: Annotated[
        bool,
        typer.Option("--even-if-older", help="also what is older or names less than what is in use"),
    ] = False,
    if_changed: Annotated[
        bool,
        typer.Option(
            "--if-changed",
            help="only where what runs has others than lie on its host",
        ),
    ] = False,
    at_once: Annotated[
        bool,
        typer.Option("--at-once", help="all gateways together, none first: somebody has to be kept out"),
    ] = False,
    plan_digest: Annotated[
        str | None, typer.Option("--plan", help="start only this plan, which others have approved")
    ] = None,
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Give what runs the files that lie on its host now, draining instances as well; nobody is logged out.

    One gateway goes first. A file that cannot be used changes nothing on its gateway.
    """
    api = Api()
    name = fleet_of(api, fleet)
    if if_changed and not api.surveying().get("fleets", name, "drift")["unserved"]:
        if output is Output.TABLE:
            say(f"What runs on {name} has what lies on its hosts, as far as they answer; nothing was begun.")
        return
    body = {
        "reason": reason,
        "even_if_older": even_if_older,
        "if_changed": if_changed,
        "at_once": at_once,
        "plan": plan_digest,
    }
    begun = api.surveying().post("fleets", name, "credentials", "reload", body=body, key=key)
    code = follow_begun(api, name, begun, output)
    if output is Output.TABLE:
        say(api.get("fleets", name)["change"]["why"])
    raise typer.Exit(code)
