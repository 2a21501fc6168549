"""Commands about tokens: what machines show instead of a person."""

import sys
from typing import Annotated

import typer

from orchestrator.cli.client import Api, Problem
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say
from orchestrator.cli.tree import group
from orchestrator.cli.words import Reason
from orchestrator.words.times import moment

app = group("Tokens of machines.")


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="the machine's name, as the audit record has it")],
    grant: Annotated[
        list[str],
        typer.Option("--grant", help="FLEET=ROLE or '*=ROLE', for example edge=ci; may be repeated"),
    ],
    days: Annotated[int, typer.Option("--days", min=1, max=365, help="how long it is good")] = 90,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a token and print it for the only time."""
    grants: dict[str, list[str]] = {}
    for one in grant:
        fleet, sign, role = one.partition("=")
        if not (fleet and sign and role):
            raise Problem("BadInput", f'"{one}" is no grant; write FLEET=ROLE, such as edge=ci', exit_code=2)
        grants.setdefault(fleet, []).append(role)
    body = {
        "name": name,
        "days": days,
        "grants": [{"fleet": fleet, "roles": roles} for fleet, roles in grants.items()],
    }
    made = Api().post("tokens", body=body)

    def table() -> None:
        say(made["token"])
        sys.stderr.write(f"good until {moment(made['known']['expires'])}; it is never shown again\n")

    emit(output, "Token", made, table, names=[made["token"]])


@app.command("list")
def list_tokens(output: OutputOption = Output.TABLE) -> None:
    """List the tokens of fleets that you administer."""
    rows = Api().get("tokens")["tokens"]

    def table() -> None:
        lines = [
            (
                row["name"],
                "; ".join(f"{fleet}: {', '.join(sorted(roles))}" for fleet, roles in row["grants"].items()),
                moment(row["expires"]),
                moment(row["last_used"]) or "never used",
                "revoked" if row["revoked_at"] else "",
            )
            for row in rows
        ]
        print_table(("NAME", "MAY", "EXPIRES", "LAST USED", ""), lines, "There is no token.")

    emit(output, "TokenList", rows, table, rows=rows, names=[row["name"] for row in rows])


@app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="the token's name")],
    reason: Reason,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a token worthless, at once."""
    done = Api().post("tokens", name, "revoke", body={"reason": reason})
    sentence = f"{name} is worthless now." if done["new"] else f"{name} was revoked before."
    emit(output, "Token", done, lambda: say(sentence), names=[name])
