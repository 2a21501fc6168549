"""Receipts: what a change answers to a command, as the command line prints it and ends with it."""

from collections.abc import Iterable
from typing import Any, NoReturn

import typer

from orchestrator.cli.output import Output, emit, say
from orchestrator.exit_code import ExitCode, code_of_order

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


def exit_of_each(receipts: Iterable[Json]) -> typer.Exit:
    """Return the exit of a command to several: one that did not take it is no success."""
    taken = all(receipt["accepted"] for receipt in receipts)
    return typer.Exit(ExitCode.DONE if taken else ExitCode.INTERNAL)
