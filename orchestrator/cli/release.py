"""Commands about releases: those of `making` work offline; the others ask the API."""

from typing import Annotated, Any

import typer

from orchestrator.cli import making
from orchestrator.cli.client import Api
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say
from orchestrator.cli.tree import group
from orchestrator.cli.words import Reason, fleet_of
from orchestrator.words.times import moment

app = group("Releases: make, sign, add, verify and withdraw them.")
for command in (
    making.tree,
    making.image,
    making.build,
    making.index,
    making.refresh,
    making.sign,
    making.push,
):
    app.command()(command)

Fleet = Annotated[
    str | None, typer.Option("--fleet", help="for whose product and channel; the only fleet when left out")
]
DigestArgument = Annotated[str, typer.Argument(help="sha256:… of the manifest")]


@app.command()
def add(digest: DigestArgument, fleet: Fleet = None, output: OutputOption = Output.TABLE) -> None:
    """Verify a release of the repository and have it in the ledger, ready to be planned."""
    api = Api()
    row = api.post("releases", body={"fleet": fleet_of(api, fleet), "digest": digest})
    release = row["release"]

    def table() -> None:
        say(f"{release['product']} {release['version']} {release['digest']}")
        say(*(f"  signed by {signer}" for signer in row["signers"]))

    emit(output, "Release", row, table, names=[release["digest"]])


@app.command()
def verify(digest: DigestArgument, fleet: Fleet = None, output: OutputOption = Output.TABLE) -> None:
    """Verify a release of the repository without adding it; say who signed and why that is enough."""
    api = Api()
    found = api.post("releases", "verify", body={"fleet": fleet_of(api, fleet), "digest": digest})
    sentence = f"{found['version']}: {found['reason']}"
    emit(output, "Verification", found, lambda: say(sentence), names=[found["digest"]])


@app.command()
def show(
    release: Annotated[str, typer.Argument(help="digest, its beginning, or version")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Show a release of the ledger, withdrawn or not."""
    row = Api().get("releases", release)

    def table() -> None:
        _print([row])
        say(*(f"  signed before by {signer}" for signer in row["former_signers"]))
        say(*(f"  {line}" for line in row["changelog"].splitlines()))

    emit(output, "Release", row, table, names=[row["release"]["digest"]])


@app.command("list")
def list_releases(output: OutputOption = Output.TABLE) -> None:
    """List the releases of the ledger, the newest first."""
    rows = Api().get("releases")["releases"]
    names = [row["release"]["digest"] for row in rows]
    emit(output, "ReleaseList", rows, lambda: _print(rows), rows=rows, names=names)


def _print(rows: list[Any]) -> None:
    lines = [
        (
            f"{row['release']['product']} {row['release']['version']}",
            row["release"]["digest"][:19],
            ", ".join(signer.partition(" (")[0] for signer in row["signers"]),
            f"{moment(row['added_at'])} by {row['added_by']}",
            f"withdrawn: {row['yanked_reason']}" if row["yanked_reason"] else "",
        )
        for row in rows
    ]
    columns = ("RELEASE", "DIGEST", "SIGNED BY", "ADDED", "")
    print_table(columns, lines, "No releases yet; add one: penstock release add DIGEST")


@app.command()
def yank(
    release: Annotated[str, typer.Argument(help="digest, its beginning, or version")],
    reason: Reason,
    output: OutputOption = Output.TABLE,
) -> None:
    """Withdraw a release: it is not rolled out any more; gateways that run it are left alone."""
    done = Api().post("releases", release, "yank", body={"reason": reason})
    sentence = f"{done['digest']} {'is withdrawn' if done['new'] else 'was withdrawn before'}"
    emit(output, "Release", done, lambda: say(sentence), names=[done["digest"]])
