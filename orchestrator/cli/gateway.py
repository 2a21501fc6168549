"""Commands about gateways: leave them out of changes, take them in; let a host in, and keep it out."""

import sys
from typing import Annotated, Any

import typer

from orchestrator.cli.client import Api
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say
from orchestrator.cli.tree import group
from orchestrator.cli.words import Key, Reason
from orchestrator.exit_code import ExitCode
from orchestrator.words.certificates import STATES, certificate_line, certificates_line, mended_by
from orchestrator.words.times import moment

app = group("Leave a gateway out, take it in again; give its host a certificate, or take it away.")

Fleet = Annotated[str, typer.Argument(help="the fleet")]
Named = Annotated[str, typer.Argument(metavar="NAME", help="the gateway")]
Several = Annotated[list[str], typer.Argument(metavar="NAME...", help="the gateways, 1,000 at most")]


@app.command("quarantine")
def quarantine(
    fleet: Fleet, names: Several, reason: Reason, key: Key = None, output: OutputOption = Output.TABLE
) -> None:
    """Go on without gateways that refuse or are silent; each is named until it is returned."""
    _tell(fleet, names, "quarantine", reason, key, output)


@app.command("return")
def take_in(
    fleet: Fleet, names: Several, reason: Reason, key: Key = None, output: OutputOption = Output.TABLE
) -> None:
    """Let gateways take part again, each once it is seen on its known-good.

    Ends with 5 when some may not yet; they are named, and the others take part. Those that are seen elsewhere
    are brought to their known-good and return by themselves.
    """
    _tell(fleet, names, "return", reason, key, output)


@app.command("enrol")
def enrol(fleet: Fleet, name: Named, output: OutputOption = Output.TABLE) -> None:
    """Print a one-time token with which the gateway's host gets its certificate; good for 15 minutes."""
    made = Api().post("fleets", fleet, "gateways", name, "enrol", body={})

    def table() -> None:
        say(made["token"])
        sys.stderr.write(
            f"good until {moment(made['expires'])}, once; on the host of {name}, type it into: "
            "penstock agent enrol --config FILE --at RELAY:PORT "
            "(penstock cluster enrol, where that is a cluster's driver)\n"
        )

    emit(output, "EnrolmentToken", made, table, names=[made["token"]])


@app.command("certificates")
def certificates(
    fleet: Fleet,
    after: Annotated[str | None, typer.Option("--after", help="only what comes after this place")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="how many gateways")] = 100,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say whose certificates hold until when, those that need somebody first; no gateway is asked."""
    found = Api().get("fleets", fleet, "certificates", after=after, limit=limit)
    rows = found["certificates"]

    def table() -> None:
        say(certificates_line(found))
        lines = [(one["gateway"], STATES[one["state"]], _line(fleet, one)) for one in rows]
        print_table(("GATEWAY", "STATE", "UNTIL WHEN, AND WHY"), lines, "No gateway.")
        if found["more"]:
            say(f"{found['more']} more: penstock gateway certificates {fleet} --after {found['after']}")

    emit(output, "FleetCertificates", found, table, rows=rows, names=[one["gateway"] for one in rows])


@app.command("revoke")
def revoke(
    fleet: Fleet, name: Named, reason: Reason, key: Key = None, output: OutputOption = Output.TABLE
) -> None:
    """Make a gateway's certificates worthless at every relay within a minute; its users notice nothing."""
    done = Api().post("fleets", fleet, "gateways", name, "revoke", body={"reason": reason}, key=key)
    count = done["certificates"]
    whose = "certificate" if count == 1 else "certificates"
    sentence = f"{name} is let in no more: {count} {whose} of ours, and all others of that name."
    if not done["known"]:
        sentence += f" {fleet} has no gateway of that name now; check the spelling."
    emit(output, "CertificatesRevoked", done, lambda: say(sentence), names=[name])


def _line(fleet: str, one: dict[str, Any]) -> str:
    command = mended_by(fleet, one)
    return certificate_line(one) if command is None else f"{certificate_line(one)}. Next: {command}"


def _tell(fleet: str, names: list[str], verb: str, reason: str, key: str | None, output: Output) -> None:
    asked = {"gateways": names, "reason": reason}
    told = Api().surveying().post("fleets", fleet, "gateways", verb, body=asked, key=key)
    done = [name for name in names if name not in told["stays"]]
    emit(output, "Told", told, lambda: say(told["sentence"]), names=done)
    if told["stays"]:
        raise typer.Exit(ExitCode.REFUSED)
