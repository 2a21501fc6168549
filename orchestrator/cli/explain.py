"""Explaining: which numbers and which rule decided a change, and what a word of penstock's means."""

import importlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.client import Answers, Api, Problem
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say
from orchestrator.cli.words import newest_change
from orchestrator.words.decisions import decision_name, decision_row
from orchestrator.words.explained import (
    change_lines,
    decision_named,
    meaning_lines,
    meaning_of,
    verdict_lines,
)

COPY = "orchestrator.processes.ledger_copy"
"""Reads a ledger without any API; loaded when it is meant."""
Json = Any


def explain(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WORD",
            help="a change, one of its decisions like edge-1#3, a fleet, whose newest change is meant, an "
            "exit code like 7 or exit 7, a state like HELD, or the name of a refusal; the only fleet when "
            "left out",
        ),
    ] = None,
    decisions: Annotated[bool, typer.Option("--decisions", help="list the change's decisions")] = False,
    ledger: Annotated[
        Path | None,
        typer.Option(
            "--ledger", exists=True, dir_okay=False, help="ask this backup or copy of a ledger, and no API"
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say which numbers and which rule decided a change, or what an exit code, state or refusal means.

    Of a decision also what would have changed it.
    """
    word = " ".join(words).removeprefix("exit ") if words else None
    meant = meaning_of(word) if word is not None else None
    if meant is not None:
        emit(output, "Meaning", meant, lambda: say(*meaning_lines(meant)), names=[meant["word"]])
        return
    if word is not None and word.isdigit():
        raise Problem("BadInput", f"no command of penstock ends with {word}", exit_code=2)
    with _asked(ledger) as answers:
        name = newest_change(answers, word) if word is None or _is_fleet(answers, word) else word
        of_one = decision_named(name)
        if of_one is not None:
            _explain_decision(answers, *of_one, output)
        elif decisions:
            _list_decisions(answers, name, output)
        else:
            found = _looked_up(answers, name, name)
            emit(output, "Explanation", found, lambda: say(*change_lines(found)), names=[name])


def _is_fleet(answers: Answers, word: str) -> bool:
    return word in answers.get("fleets")["fleets"]


def _asked(ledger: Path | None) -> AbstractContextManager[Answers]:
    if ledger is None:
        return nullcontext(Api())
    opened: AbstractContextManager[Answers] = importlib.import_module(COPY).answers_of(ledger)
    return opened


def _explain_decision(answers: Answers, change: str, number: int, output: Output) -> None:
    name = decision_name(change, number)
    found = _looked_up(answers, name, change, "decisions", str(number))
    emit(output, "Decision", found, lambda: say(*verdict_lines(found)), names=[name])


def _list_decisions(answers: Answers, change: str, output: Output) -> None:
    rows: list[Json] = []
    while page := _looked_up(answers, change, change, "decisions", after=len(rows))["decisions"]:
        rows += page
    lines = [decision_row(change, row) for row in rows]

    def table() -> None:
        nothing = f"No gate has decided anything about {change}."
        print_table(("DECISION", "WHEN", "WAVE", "TO DO", "VERDICT", "WHY"), lines, nothing)

    names = [decision_name(change, row["number"]) for row in rows]
    emit(output, "DecisionList", rows, table, rows=rows, names=names)


def _looked_up(answers: Answers, word: str, *path: str, after: int | None = None) -> Json:
    """Return what is known of a change; Problem names the word that somebody wrote."""
    try:
        return answers.get("changes", *path, after=after)
    except Problem as problem:
        if problem.code not in {"Unknown", "BadInput"}:
            raise
        sentence = f"{word} is no change that you may see, no exit code, no state and no name of a refusal"
        if len(path) > 1 and problem.code == "Unknown":
            sentence = f"{word} is no decision of a change that you may see: {problem}"
        raise Problem("Unknown", sentence, exit_code=2, offers=problem.offers) from problem
