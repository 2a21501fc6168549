"""Explaining: which numbers and which rule decided a change, and what a word of penstock's means."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from orchestrator.cli.client import Api, Problem
from orchestrator.cli.output import Output, OutputOption, emit, say, span
from orchestrator.cli.screens import what
from orchestrator.exit_code import ExitCode

ERRORS = (
    "policies.model.errors",
    "policies.model.refusals",
    "activities.refusals",
    "orchestrator.relay.limits",
    "orchestrator.api.limits",
    "orchestrator.api.problems",
)
"""Where errors are that a person may see, those that come most often first."""
RUNBOOKS = {
    "held": "held-decide",
    "metrics_unavailable": "metrics-blind",
    "not_enough_data": "held-decide",
    "rolled_back": "canary-rejected",
    "rollback_incomplete": "rollback-incomplete",
    "unhealthy": "canary-rejected",
    "hard": "canary-rejected",
    "ForeignOrder": "host-refuses",
    "BeyondHostLimits": "host-refuses",
    "ChangeEnded": "host-refuses",
    "InstanceGone": "canary-rejected",
    "LeaseLapsed": "worker-or-temporal-down",
    "RunningMismatch": "wrong-version-running",
    "Unavailable": "worker-or-temporal-down",
}
"""Which runbook begins with which word; refusals of a signature all have another one."""


def explain(
    word: Annotated[str, typer.Argument(help="a change, an exit code, or the name of a refusal")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Say which numbers and which rule decided a change, or what an exit code or refusal means."""
    meant = meaning_of(word)
    if meant is not None:
        emit(output, "Meaning", meant, lambda: say(*_meaning_lines(meant)), names=[word])
        return
    api = Api()
    try:
        found = api.get("changes", word)
    except Problem as problem:
        if problem.code not in {"Unknown", "BadInput"}:
            raise
        sentence = f"{word} is no change that you may see, no exit code and no name of a refusal"
        raise Problem("Unknown", sentence, exit_code=2, offers=problem.offers) from problem
    emit(output, "Explanation", found, lambda: say(*change_lines(found)), names=[word])


def change_lines(found: Mapping[str, Any]) -> list[str]:
    """Return what a change did, how it stands, and the evidence under its last decision."""
    record, status = found["record"], found["status"]
    lines = [
        f"{record['name']}  {what(record)}  {span(record['began'], record['ended'])}",
        f" Asked by    {record['requested_by']}: {record['reason']}",
        f" What        {status['what']}",
        f" Why         {status['why']}",
        f" Next        {status['next']}",
    ]
    decision = status["decision"]
    if decision is None:
        lines.append(" Decision    no gate has decided anything about it")
    else:
        lines.append(f" Decision    {decision['action']}, {decision['verdict']}: {decision['reason']}")
        lines += [f" Gate        {reading_line(one)}" for one in decision["readings"]]
        lines += [f" Failed      {name} by itself" for name in decision["failed"]]
        lines += [f" Rebooted    {name}" for name in decision["rebooted"]]
    if runbook := _runbook_of(record, decision):
        lines.append(f" Runbook     runbooks/{runbook}.md")
    return lines


def reading_line(reading: Mapping[str, Any]) -> str:
    """Return what one gate has said, against what, and the numbers behind it."""
    against = f" against {reading['against']}" if reading["against"] else ""
    numbers = ", ".join(f"{name} {value:g}" for name, value in sorted(reading["numbers"].items()))
    behind = f" ({numbers})" if numbers else ""
    return f"{reading['gate']}{against}: {reading['verdict']}: {reading['reason']}{behind}"


def _runbook_of(record: Mapping[str, Any], decision: Mapping[str, Any] | None) -> str | None:
    words = [record["outcome"] or "", decision["verdict"] if decision else ""]
    return next((RUNBOOKS[word] for word in words if word in RUNBOOKS), None)


def meaning_of(word: str) -> dict[str, Any] | None:
    """Return what an exit code or a refusal's name means, None when the word is neither."""
    if word.isdigit():
        code = next((one for one in ExitCode if one.value == int(word)), None)
        if code is None:
            raise Problem("BadInput", f"no command of penstock ends with {word}", exit_code=2)
        return {"word": word, "meaning": f"{code.name.lower().replace('_', ' ')}: {code.meaning}"}
    if word == "Internal":
        meaning = "An error of penstock itself; the sentence says where its trace is. Please report it."
        return {"word": word, "meaning": meaning, "exit_code": ExitCode.INTERNAL, "runbook": None}
    for name in ERRORS if word[:1].isupper() else ():  # names of changes are written small
        error = getattr(importlib.import_module(name), word, None)
        if inspect.isclass(error) and hasattr(error, "exit_code"):
            refused = any(kind.__name__ == "TrustError" for kind in inspect.getmro(error))
            return {
                "word": word,
                "meaning": " ".join((inspect.getdoc(error) or "").split()),
                "exit_code": error.exit_code,
                "runbook": RUNBOOKS.get(word, "signature-refused" if refused else None),
            }
    return None


def _meaning_lines(meant: Mapping[str, Any]) -> list[str]:
    lines = [f"{meant['word']}  {meant['meaning']}"]
    if "exit_code" in meant:
        code = next(one for one in ExitCode if one.value == meant["exit_code"])
        lines.append(f" Exit code   {code.value}: {code.meaning}")
    if meant.get("runbook"):
        lines.append(f" Runbook     runbooks/{meant['runbook']}.md")
    return lines
