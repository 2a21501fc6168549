"""Commands about the audit record: read, verified, exported; and verdicts recomputed from evidence alone."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.client import Api, Problem
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say
from orchestrator.cli.tree import group
from orchestrator.exit_code import ExitCode
from orchestrator.settings import read_settings
from orchestrator.words.times import moment
from policies.model.errors import BadInput

if TYPE_CHECKING:
    from policies.model.verification import Verification

app = group("The audit record: who did what, and whether it is whole.")


@app.command("list")
def list_entries(
    after: Annotated[int, typer.Option("--after", min=0, help="only entries after this number")] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="how many entries")] = 100,
    newest: Annotated[bool, typer.Option("--newest", help="the newest first")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List entries of the fleets that you audit, the oldest first or, with --newest, the newest."""
    if newest and after:
        raise Problem("BadInput", "--newest and --after ask for two orders; give one of them", exit_code=2)
    if newest:
        rows = Api().get("audit", "newest", limit=limit)["entries"]
    else:
        rows = Api().get("audit", after=after, limit=limit)["entries"]

    def table() -> None:
        lines = [
            (str(row["seq"]), moment(row["at"]), row["person"], row["via"], row["action"], row["subject"])
            for row in rows
        ]
        print_table(("NUMBER", "WHEN", "WHO", "VIA", "DID", "TO"), lines, "No entry.")
        if len(rows) == limit and not newest:
            say(f"There are more: penstock audit list --after {rows[-1]['seq']}")

    emit(output, "AuditEntryList", rows, table, rows=rows, names=[str(row["seq"]) for row in rows])


@app.command()
def verify(output: OutputOption = Output.TABLE) -> None:
    """Check the whole record against its signed checkpoints; ends with 10 when anything is wrong."""
    found = Api().post("audit", "verify", body={})

    def table() -> None:
        if found["fault"]:
            say(f"BROKEN  {found['fault']}")
            return
        newest = found["newest"]
        signed = (
            f"head matches the checkpoint of entry {newest['seq']}, signed {newest['at']}" if newest else ""
        )
        say(f"OK  {found['entries']} entries, unbroken, {signed or 'no checkpoint yet'}")

    emit(output, "AuditVerification", found, table)
    raise typer.Exit(ExitCode.DIFFERENCES if found["fault"] else ExitCode.DONE)


@app.command()
def export(
    to: Annotated[Path | None, typer.Option("--to", help="a file; standard output when left out")] = None,
) -> None:
    """Write the whole record as JSON lines; `python -m orchestrator.store.verifier` checks it anywhere."""
    lines = Api().lines("audit", "export")
    if to is None:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return
    new = to.with_name(f"{to.name}.part")  # what was exported before stays until the new one is whole
    try:
        with new.open("w") as file:
            file.writelines(f"{line}\n" for line in lines)
        new.replace(to)
    except OSError as error:
        raise BadInput(f"{to} cannot be written: {error.strerror}; name another file") from error
    finally:
        new.unlink(missing_ok=True)
    say(f"Wrote {to}.")


@app.command()
def key() -> None:
    """Print the public key that the checkpoints' signatures are checked with."""
    say(Api().get("audit", "head")["public_key"])


@app.command()
def reverify(
    line: Annotated[int | None, typer.Option(min=1, help="only this line of the record")] = None,
) -> None:
    """Recompute verdicts about releases offline, from the stored evidence alone; exit 10 if one differs."""
    from activities.drivers.trust_files import Trail, evidence_of, recompute  # noqa: PLC0415

    store = read_settings().store
    verifications = Trail(store / "audit.jsonl").read()
    chosen = list(enumerate(verifications, start=1))
    if line is not None and line > len(chosen):
        raise BadInput(f"the record has {len(chosen)} lines, not {line}")
    differences = 0
    for number, verification in chosen if line is None else chosen[line - 1 : line]:
        said = _compare(verification, recompute(verification, evidence_of(store)))
        differences += said.startswith("differs")
        typer.echo(f"{number} {verification.at:%Y-%m-%d %H:%M:%S} UTC {verification.release[:19]} {said}")
    raise typer.Exit(ExitCode.DIFFERENCES if differences else ExitCode.DONE)


def _compare(verification: "Verification", code: str | None) -> str:
    """Return in a few words whether the verdict is the same today."""
    then = verification.verdict.code
    if code is None:
        return f"{then}, about the transfer: nothing to recompute"
    return f"{then}, same today" if code == then else f"differs: {then} then, {code} now"
