"""Explanations: which numbers and which rule decided a change, and what a word of penstock's means."""

import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

from orchestrator.exit_code import ExitCode
from orchestrator.words.changes import what
from orchestrator.words.decisions import decision_lines, evidence_lines, wave
from orchestrator.words.signals import signal_lines, signal_rows
from orchestrator.words.times import moment, span
from policies.runbooks import OF_SIGNATURES, runbook_of

ERRORS = (
    "policies.model.errors",
    "policies.model.refusals",
    "activities.refusals",
    "activities.drivers.notices.port",
    "activities.drivers.runtime.kubernetes.answers",
    "orchestrator.relay.limits",
    "orchestrator.api.limits",
    "orchestrator.api.problems",
)
"""Where errors are that a person may see, those that come most often first."""


def change_lines(found: Mapping[str, Any]) -> list[str]:
    """Return what a change did, how it stands, and the evidence under its last decision.

    Harm that was found after the promotion comes before the decision that promoted it.
    """
    record, status = found["record"], found["status"]
    lines = [
        f"{record['name']}  {what(record)}  {span(record['began'], record['ended'])}",
        f" Asked by    {record['requested_by']}: {record['reason']}",
        f" What        {status['what']}",
        f" Why         {status['why']}",
        f" Next        {status['next']}",
    ]
    if (harm := found.get("harm")) is not None:
        lines.append(f" Harm        {moment(harm['at'])} {wave(0)}: {harm['decision']['reason']}")
        lines += evidence_lines(harm["decision"])
    decision = status["decision"]
    if decision is None:
        lines.append(" Decision    no gate has decided anything about it")
    else:
        lines.append(f" Decision    {decision['action']}, {decision['verdict']}: {decision['reason']}")
        lines += evidence_lines(decision)
    lines += [f" People      {said}" for _, said in signal_lines(found.get("signals", {}))]
    lines += [f" Said        {moment(at)} {said}" for at, said in signal_rows(found.get("signals"))]
    if status["needs_you"]:
        lines.append(f" Needs you   {status['needs_you']}")
    if runbook := status["runbook"]:
        lines.append(f" Runbook     runbooks/{runbook}.md")
    return lines


def verdict_lines(found: Mapping[str, Any]) -> list[str]:
    """Return what one decision of a change was and why, what would have changed it, and the runbook."""
    lines = decision_lines(found)
    if found["runbook"] is None:
        return lines
    return [*lines, f" Runbook     runbooks/{found['runbook']}.md"]


_DECISION = re.compile(r"(?P<change>[^#]+)#(?P<number>[0-9]{1,9})")


def decision_named(word: str) -> tuple[str, int] | None:
    """Return the change and the number of a decision that is written like edge-1#3; None for another word."""
    found = _DECISION.fullmatch(word)
    return (found["change"], int(found["number"])) if found is not None else None


def meaning_of(word: str) -> dict[str, Any] | None:
    """Return what an exit code, a state or a refusal's name means, None when the word is none of them."""
    if word.isdigit():
        code = next((one for one in ExitCode if one.value == int(word)), None)
        if code is None:
            return None
        name = code.name.lower()
        meaning = f"{name.replace('_', ' ')}: {code.meaning}"
        return {"word": word, "meaning": meaning, "runbook": runbook_of(name)}
    from orchestrator.words.states import state_named  # noqa: PLC0415 - help does without models

    if (state := state_named(word)) is not None:
        name, meaning = state
        return {"word": word, "meaning": meaning, "runbook": runbook_of(name)}
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
                "runbook": runbook_of(word) or (OF_SIGNATURES if refused else None),
            }
    return None


def meaning_lines(meant: Mapping[str, Any]) -> list[str]:
    """Return what a word means, in lines."""
    lines = [f"{meant['word']}  {meant['meaning']}"]
    if "exit_code" in meant:
        code = next(one for one in ExitCode if one.value == meant["exit_code"])
        lines.append(f" Exit code   {code.value}: {code.meaning}")
    if meant.get("runbook"):
        lines.append(f" Runbook     runbooks/{meant['runbook']}.md")
    return lines
