"""Commands about the audit: verdicts about releases recomputed from the evidence alone."""

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.exit_code import ExitCode
from orchestrator.settings import Settings
from policies.model.errors import BadInput

if TYPE_CHECKING:
    from policies.model.verification import Verification

app = typer.Typer(help="The record of verdicts about releases.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The record of verdicts about releases."""


@app.command()
def reverify(
    line: Annotated[int | None, typer.Option(min=1, help="only this line of the record")] = None,
) -> None:
    """Recompute verdicts about releases offline, from the stored evidence alone; exit 10 if one differs."""
    from activities.drivers.trust_files import Trail, evidence_of, recompute  # noqa: PLC0415

    store = Settings().store
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
