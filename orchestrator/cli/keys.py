"""Commands that make keys of the orchestrator's processes, for those that lie apart from each other."""

import importlib
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import Output, OutputOption, emit, say
from orchestrator.cli.tree import group

app = group("Keys of the API and of relays that have files of their own.")
FILES = "orchestrator.processes.key_files"
"""Loaded when it is meant."""


@app.command()
def api(
    masters: Annotated[Path, typer.Argument(help="the file of the master keys, which is read")],
    file: Annotated[Path, typer.Argument(help="the API's file, which is written anew")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Write the payload keys of an API, which seal nothing for a gateway.

    Write them again after each change of the master keys. A file that is there keeps its owner.
    """
    names = importlib.import_module(FILES).write_api_keys(masters, file)
    sentence = f"{file} has the API's keys {', '.join(names)}. It has to belong to the API's user."
    found = {"file": str(file), "names": list(names)}
    emit(output, "ApiKeys", found, lambda: say(sentence), names=[str(file)])


@app.command()
def relay(
    folder: Annotated[Path, typer.Argument(help="the folder, which is made")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Write what all relays share: the authority of gateways and the relay key.

    Relays make both by themselves where they can write. What is in the folder already stays.
    """
    fingerprint = importlib.import_module(FILES).write_relay_keys(folder)
    sentence = f"{folder} has the authority {fingerprint} and the relay key. Keep a backup of it."
    found = {"folder": str(folder), "fingerprint": fingerprint}
    emit(output, "RelayKeys", found, lambda: say(sentence), names=[str(folder)])
