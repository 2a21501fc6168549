"""Completion for bash, written from the command line itself; Python is asked only for what the API knows."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from deploy.debian.command_line import Node

SCRIPT = Path(__file__).with_name("completion.bash")


def script(root: Node) -> str:
    """Return what bash loads: tables of what can follow which words, and the function that reads them."""
    rows = sorted(row for node in root.walk() for row in _rows(node))
    tables = {
        "words": [(path, said) for path, kind, said in rows if kind == "words"],
        "values": [(path, said) for path, kind, said in rows if kind == "values"],
    }
    declared = "".join(
        f"declare -gA _penstock_{name}=(\n"
        + "".join(f"    [{shlex.quote(path)}]={shlex.quote(said)}\n" for path, said in table)
        + ")\n"
        for name, table in tables.items()
    )
    return SCRIPT.read_text().replace("@TABLES@\n", declared)


def _rows(node: Node) -> Iterator[tuple[str, str, str]]:
    """Yield what follows a command's words, and what follows each of its options that takes a value."""
    path = " ".join(node.words)
    options = [name for one in node.options for name in (*one.opts, *one.secondary_opts) if name[:2] == "--"]
    yield path, "words", " ".join([*(child.words[-1] for child in node.children), *sorted(options), "--help"])
    for one in node.options:
        if one.is_flag:
            continue
        choices = getattr(one.type, "choices", None)
        # @files and @asked are said in completion.bash; a value that nobody can guess has no row's text.
        kind = " ".join(map(str, choices)) if choices else "@asked" if _asks(one) else _kind(one)
        for name in one.opts:
            yield f"{path} {name}", "values", kind


def _asks(option: object) -> bool:
    return getattr(option, "_custom_shell_complete", None) is not None


def _kind(option: object) -> str:
    named = type(getattr(option, "type", None)).__name__
    return "@files" if named in {"TyperPath", "Path", "File"} else ""
