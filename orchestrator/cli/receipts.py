"""Receipts: what a change answers to a command, as the command line prints it and ends with it."""

from typing import Any, NoReturn

import typer

from orchestrator.cli.output import Output, emit, say
from orchestrator.exit_code import code_of_order

Json = Any


def print_receipt(receipt: Json, output: Output) -> None:
    """Print what became of the command."""
    emit(output, "CommandReceipt", receipt, lambda: say(receipt["sentence"]), names=[receipt["id"]])


def end_with_receipt(receipt: Json, output: Output) -> NoReturn:
    """Print what became of the command, and end with its exit code.

    Raises:
        typer.Exit: Always.
    """
    print_receipt(receipt, output)
    raise exit_of(receipt)


def exit_of(receipt: Json) -> typer.Exit:
    """Return the exit of a command whose change is not followed."""
    stored, incomplete = receipt.get("stored", False), receipt.get("incomplete", False)
    return typer.Exit(code_of_order(is_stored=stored, is_incomplete=incomplete))
