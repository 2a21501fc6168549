"""The manual pages, written from the command line itself: one for penstock, one for each word after it."""

import gzip
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from deploy.debian.command_line import Node
from orchestrator.exit_code import ExitCode
from orchestrator.settings import Settings, state_folder


def write(folder: Path, root: Node, moment: int, explains: Callable[[str], bool]) -> None:
    """Write a page into the folder for each word that is explained."""
    folder.mkdir(parents=True)
    for node in root.children:
        if explains(node.words[-1]):
            write_page(folder, node, moment)


def write_page(folder: Path, node: Node, moment: int) -> None:
    """Write the page of one node into the folder."""
    path = folder / f"{'-'.join(node.words)}.1.gz"
    path.write_bytes(gzip.compress(page(node, moment).encode(), mtime=0))


def page(node: Node, moment: int) -> str:
    """Return one page, in the language of man(7)."""
    day = datetime.fromtimestamp(moment, UTC).date()
    name = "-".join(node.words)
    commands = _commands_of(node)
    typed = (node,) if len(node.words) == 1 else commands
    lines = [
        f'.TH {_plain(name.upper())} 1 "{day}" "penstock {version("penstock")}" "User Commands"',
        ".SH NAME",
        f"{_plain(name)} \\- {_plain(_sentence(node).removesuffix('.'))}",
        ".SH SYNOPSIS",
        *(line for one in typed for line in (f".B {_plain(one.usage)}", ".br")),
        ".SH DESCRIPTION",
        _plain(node.says),
        *_rows(node),
    ]
    if len(node.words) == 1:
        lines += [".SH COMMANDS", *_commands(node), ".SH ENVIRONMENT", *_settings()]
    elif node.children:
        lines.append(".SH COMMANDS")
        for one in commands:
            lines += [f".SS {_plain(' '.join(one.words[2:]))}", _plain(one.says), *_rows(one)]
    lines += [".SH EXIT STATUS", *(line for code in ExitCode for line in _item(str(int(code)), code.meaning))]
    return "\n".join([*lines, ""])


def _commands_of(node: Node) -> tuple[Node, ...]:
    """Return what can be typed: the command itself, or a group's commands and those of its groups."""
    return tuple(one for one in node.walk() if not one.children)


def _rows(node: Node) -> Iterator[str]:
    for name, text in node.rows:
        yield from _item(name, text)


def _commands(node: Node) -> Iterator[str]:
    for child in node.children:
        yield from _item(f"penstock-{child.words[-1]}(1)", _sentence(child))


def _settings() -> Iterator[str]:
    """Yield each setting of the processes; what is in the state folder is said so."""
    yield from _item("PENSTOCK_STATE", "folder of what must not be lost")
    for name, field in Settings.model_fields.items():
        default = field.default
        usual = str(default).replace(str(state_folder()), "$PENSTOCK_STATE")
        said = f"{field.description}" if default is None else f"{field.description} [{usual}]"
        yield from _item(f"PENSTOCK_{name.upper()}", said)


def _item(name: str, text: str) -> list[str]:
    return [".TP", f".B {_plain(name)}", _plain(text)]


def _sentence(node: Node) -> str:
    return " ".join(node.says.split("\n\n", 1)[0].split())


def _plain(text: str) -> str:
    """Return the text so that nothing in it is taken for a command of the language."""
    lines = map(str.strip, text.replace("\\", "\\e").replace("-", "\\-").splitlines())
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)
