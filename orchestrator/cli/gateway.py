"""Commands about one gateway: leave it out of changes by name, and take it in again once it is well."""

from typing import Annotated

import typer

from orchestrator.cli.client import Api
from orchestrator.cli.output import Output, OutputOption, emit, say
from orchestrator.cli.words import Key, Reason

app = typer.Typer(help="Leave a gateway out, or take it in again.", no_args_is_help=True)

Fleet = Annotated[str, typer.Argument(help="the fleet")]
Named = Annotated[str, typer.Argument(metavar="NAME", help="the gateway")]


@app.command("quarantine")
def quarantine(
    fleet: Fleet, name: Named, reason: Reason, key: Key = None, output: OutputOption = Output.TABLE
) -> None:
    """Go on without a gateway that refuses or is silent; it is named until it is returned."""
    _tell(fleet, name, "quarantine", reason, key, output)


@app.command("return")
def take_in(
    fleet: Fleet, name: Named, reason: Reason, key: Key = None, output: OutputOption = Output.TABLE
) -> None:
    """Let a gateway take part again, once it is seen on its known-good; refused with the reason otherwise."""
    _tell(fleet, name, "return", reason, key, output)


def _tell(fleet: str, name: str, verb: str, reason: str, key: str | None, output: Output) -> None:
    told = Api().surveying().post("fleets", fleet, "gateways", name, verb, body={"reason": reason}, key=key)
    emit(output, "Told", told, lambda: say(told["sentence"]), names=[name])
