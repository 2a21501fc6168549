"""Names say what things are, and everything public says what it promises."""

import ast
import re

from orchestrator.installation import ROOMS
from tests.house.tree import PACKAGES, dotted, modules, parse, place, public_definitions

VAGUE = {"util", "utils", "helper", "helpers", "common", "base", "manager", "managers", "handler", "handlers"}
VAGUE |= {"misc", "data", "info", "core", "lib", "shared", "tools", "stuff"}
VAGUE_CLASS = re.compile(r"(Manager|Handler|Helper|Util|Utils|Processor|Info|Data)$")
NAMED_BY_THE_ENGINE = {
    "workflow.defn",
    "workflow.signal",
    "workflow.query",
    "workflow.update",
    "activity.defn",
}
UNREPEATABLE = {
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
    "uuid.uuid4",
    "uuid4",
    "open",
}


def test_no_module_has_a_name_that_could_hold_anything() -> None:
    vague = [place(path) for path in modules(*PACKAGES) if path.stem in VAGUE or path.parent.name in VAGUE]
    assert vague == []


def test_no_class_in_the_rooms_is_named_for_its_vagueness() -> None:
    vague = [
        f"{place(path)}: {node.name}"
        for path in modules(*ROOMS)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ClassDef) and VAGUE_CLASS.search(node.name)
    ]
    assert vague == []


def test_everything_public_in_the_rooms_says_what_it_promises() -> None:
    silent = []
    for path in modules(*ROOMS):
        tree = parse(path)
        silent += [place(path)] if ast.get_docstring(tree) is None else []
        for name, node in public_definitions(tree):
            overload = "overload" in [dotted(mark) for mark in node.decorator_list]  # the one below it speaks
            if ast.get_docstring(node) is None and not overload:
                silent.append(f"{place(path)}:{node.lineno} {name}")
    assert silent == []


def test_every_init_file_is_a_docstring_and_nothing_else() -> None:
    inits = [path for path in modules(*PACKAGES) if path.name == "__init__.py"]
    busy = []
    for path in inits:
        tree = parse(path)
        if path.read_text().strip() and not (len(tree.body) == 1 and ast.get_docstring(tree)):
            busy.append(place(path))
    assert len(inits) > len(ROOMS)
    assert busy == []


def test_every_name_given_to_the_engine_is_written_out() -> None:
    found, implicit = 0, []
    for path in modules("workflows", "activities"):
        for node in ast.walk(parse(path)):
            for decorator in getattr(node, "decorator_list", ()):
                call = decorator.func if isinstance(decorator, ast.Call) else decorator
                if dotted(call) in NAMED_BY_THE_ENGINE:
                    found += 1
                    named = isinstance(decorator, ast.Call) and any(
                        k.arg == "name" for k in decorator.keywords
                    )
                    implicit += [] if named else [f"{place(path)}:{decorator.lineno}"]
    assert found > 0
    assert implicit == []


def test_workflows_ask_the_engine_for_time_and_chance() -> None:
    asked = [
        f"{place(path)}:{node.lineno} {dotted(node.func)}"
        for path in modules("workflows")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and dotted(node.func) in UNREPEATABLE
    ]
    assert asked == []


def test_tests_are_named_for_what_is_promised_and_not_for_hopes() -> None:
    hopeful = [
        f"{place(path)}: {node.name}"
        for path in modules("tests")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and (re.search(r"_should(_|$)", node.name) or node.name.count("_") < 3)
    ]
    assert hopeful == []
