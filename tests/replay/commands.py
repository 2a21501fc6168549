"""The commands each workflow gives the engine, read from its source in the order they stand there.

A history replays only as long as these stay as they were; the baseline makes a change of them a
decision. The idea is from PostHog (research: temporal.md section 7).
"""

import ast
from pathlib import Path

WORKFLOWS = Path(__file__).parents[2] / "workflows"

COMMANDS = {
    "cancel",
    "continue_as_new",
    "execute_activity",
    "execute_activity_method",
    "execute_child_workflow",
    "patched",
    "signal",
    "sleep",
    "start_activity",
    "start_activity_method",
    "start_child_workflow",
}

SAID_ONCE = {
    "answer_of",
    "control.ask",
    "control.note",
    "control.read_part",
    "control.record",
    "end_bake",
    "guarded",
    "in_parts",
    "left_behind",
    "self._do",
    "start_drains_of",
    "tell",
}
"""Functions that give the engine a command for whoever calls them."""


def commands_of(source: str) -> dict[str, list[str]]:
    """Return each function's commands, by its name; functions without any are left out."""
    found = {}
    for place in ast.walk(ast.parse(source)):
        if isinstance(place, ast.AsyncFunctionDef | ast.FunctionDef):
            commands = [_command(call) for call in _calls(place) if _is_command(call)]
            if commands:
                found[place.name] = commands
    return found


def commands_now() -> dict[str, dict[str, list[str]]]:
    """Return the commands of every workflow module."""
    modules = {path.stem: commands_of(path.read_text()) for path in sorted(WORKFLOWS.glob("*.py"))}
    return {module: functions for module, functions in modules.items() if functions}


def _calls(place: ast.AST) -> list[ast.Call]:
    calls = [inside for inside in ast.walk(place) if isinstance(inside, ast.Call)]
    return sorted(calls, key=lambda call: (call.lineno, call.col_offset))


def _is_command(call: ast.Call) -> bool:
    if ast.unparse(call.func) in SAID_ONCE:
        return True
    if not isinstance(call.func, ast.Attribute):
        return False
    timed = call.func.attr == "wait_condition" and any(word.arg == "timeout" for word in call.keywords)
    return timed or call.func.attr in COMMANDS


def _command(call: ast.Call) -> str:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
    of = call.func.value if isinstance(call.func, ast.Attribute) else call.func
    what = call.args[name == "answer_of" :]  # whom it asks is no part of what it asks
    return f"{name} {ast.unparse(what[0] if what else of)}"
