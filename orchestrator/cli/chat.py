"""Commands about chats: their process, and which accounts are people."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.client import Api
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say
from orchestrator.cli.tree import group
from orchestrator.cli.words import Reason
from orchestrator.words.text import printable
from orchestrator.words.times import moment

app = group("Orders by chat.")


@app.command("run")
def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="chat.yaml: which chat, and the token")],
) -> None:
    """Listen to a chat and answer there until SIGTERM; without it everything else works."""
    import asyncio  # noqa: PLC0415 - other commands do without, and come sooner

    from orchestrator.chat import process  # noqa: PLC0415 - the chat's libraries are loaded only here
    from orchestrator.processes.supervisor import say_ready  # noqa: PLC0415 - the same

    asyncio.run(process.main(config, say_ready))


@app.command("list")
def list_links(output: OutputOption = Output.TABLE) -> None:
    """List the chat accounts that are you; an administrator of every fleet sees everybody's."""
    rows = Api().get("chat", "links")["links"]

    def table() -> None:
        lines = [
            (row["person"], row["user"], row["workspace"], printable(row["name"]), moment(row["expires"]))
            for row in rows
        ]
        header = ("PERSON", "ACCOUNT", "WORKSPACE", "CALLS ITSELF", "UNTIL")
        print_table(header, lines, "No chat account is linked.")

    emit(output, "ChatLinkList", rows, table, rows=rows, names=[row["user"] for row in rows])


@app.command("unlink")
def unlink(
    workspace: Annotated[str, typer.Argument(help="workspace of chat.yaml")],
    user: Annotated[str, typer.Argument(help="the account's id")],
    reason: Reason,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a chat account nobody, at once; yours, or any as an administrator of every fleet."""
    body = {"workspace": workspace, "user": user, "reason": reason}
    done = Api().post("chat", "unlink", body=body)
    sentence = f"{user} is nobody now." if done["new"] else f"{user} was nobody before."
    emit(output, "ChatUnlinked", done, lambda: say(sentence), names=[user])
