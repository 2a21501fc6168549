"""Runbooks as tests: what a page has people type, what it says that they will see, and where that is typed.

A page's comments `<!-- lab ... -->` say, a line each, what is done to a lab where the comment stands, the
first one before anybody types: `break KIND [GATEWAY]` and `mend KIND [GATEWAY]`, `$ COMMAND` or
`ben$ COMMAND`, with `[exit 3]` under one that ends with another code than 0, `until WORDS: COMMAND`, which
waits for a command to say these words, and `file {KEY: VALUE}`, which the fleet's file says besides.
In a `console` block the lines under a command are what it prints: `…` stands for anything within a line,
alone in a line for any lines. `[exit 3]` is the code that the command ends with; without it that is 0. Runs
of spaces count as one. Lines with `$` are typed by whoever has the fleet, those with `ben$` by somebody else,
and those with `#` on the host of gw-1. `DIGEST` is the plan's that was printed last.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "runbooks"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "index.md")
ANYTHING = "…"
_PART = re.compile(r"^```console\n(?P<block>.+?)^```$|^<!-- lab\n(?P<lab>.*?)^-->$", re.MULTILINE | re.DOTALL)
_PROMPT = re.compile(r"(?P<person>[a-z]*)(?P<sign>[$#]) (?P<command>.+)")
_EXIT = re.compile(r"\[exit (\d+)\]")


@dataclass
class Typed:
    """One command of a page, with the lines that it is said to print and the code it is said to end with."""

    command: str
    on_host: bool = False
    person: str | None = None
    """Who else types it, by name."""
    expected: list[str] = field(default_factory=list)
    code: int = 0


def in_order(page: Path) -> Iterator[str | Typed]:
    """Return what is done to a lab and what is typed, in the page's order."""
    for part in _PART.finditer(page.read_text()):
        if part["block"] is not None:
            yield from _commands(part["block"])
        else:
            yield from _steps(part["lab"])


def prepared(page: Path) -> list[str]:
    """Return what is done to a lab, before the page is typed and within it; none where nothing is."""
    return [one for one in in_order(page) if isinstance(one, str)]


def typed(page: Path) -> list[Typed]:
    """Return the commands of the page, in their order."""
    return [one for one in in_order(page) if isinstance(one, Typed)]


def step_of(line: str) -> tuple[str, int]:
    """Return the command of a step and the code that it is said to end with."""
    command, code, rest = line, 0, _EXIT.search(line)
    if rest is not None and rest.end() == len(line):
        command, code = line[: rest.start()].rstrip(), int(rest[1])
    return command, code


def _steps(comment: str) -> list[str]:
    steps = list[str]()
    for line in comment.splitlines():
        if _EXIT.fullmatch(line):
            steps[-1] += f" {line}"
        else:
            steps.append(line)
    return steps


def _commands(block: str) -> Iterator[Typed]:
    current: Typed | None = None
    for line in block.splitlines():
        if prompt := _PROMPT.match(line):
            if current is not None:
                yield current
            current = Typed(prompt["command"], prompt["sign"] == "#", prompt["person"] or None)
        elif current is not None and (code := _EXIT.fullmatch(line.strip())):
            current.code = int(code[1])
        elif current is not None and line.strip():
            current.expected.append(line)
    if current is not None:
        yield current


def difference(expected: Sequence[str], said: str) -> str | None:
    """Return how a command printed something else than the page says, None when it did not.

    Lines are compared in their order; between two lines others may only stand where the page says `…`.
    """
    heard = [_squeezed(line) for line in said.splitlines() if line.strip()]
    wanted = [_squeezed(line) for line in expected]
    return None if _matches(wanted, heard) else _told(wanted, heard)


def _matches(wanted: Sequence[str], heard: Sequence[str]) -> bool:
    """Whether the lines fit; `reached` are the numbers of heard lines that may be taken up to here."""
    reached = {0}
    for line in wanted:
        if line == ANYTHING:
            reached = set(range(min(reached), len(heard) + 1)) if reached else set()
        else:
            fits = _pattern(line)
            reached = {at + 1 for at in reached if at < len(heard) and fits.fullmatch(heard[at])}
    return len(heard) in reached


def _told(wanted: Sequence[str], heard: Sequence[str]) -> str:
    for line in wanted:
        if line != ANYTHING and not any(_pattern(line).fullmatch(one) for one in heard):
            return f"no line says {line!r}; it said:\n" + "\n".join(heard)
    return (
        "it said more than, or in another order than:\n"
        + "\n".join(wanted)
        + "\nnamely:\n"
        + "\n".join(heard)
    )


def _pattern(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in line.split(ANYTHING)))


def _squeezed(line: str) -> str:
    return " ".join(line.split())
