"""docs/install.md as a list of steps: what is typed or written on which host, in its order."""

import re
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "install.md"
CONTROL, GATEWAY = "control", "gateway"
_ON = {
    CONTROL: re.compile(r"^## The control host|\*\*control host\*\*"),
    GATEWAY: re.compile(r"^## A gateway's host|\*\*gateway's host\*\*"),
}
_FILE = re.compile(r"`(/(?:etc|root)/[^`]+)`")


@dataclass(frozen=True)
class Step:
    """One command, or one file with what is written into it."""

    host: str
    command: str = ""
    file: str = ""
    content: str = ""

    @property
    def codes(self) -> tuple[int, ...]:
        """How it may end: a doctor who finds that metrics are missing ends with 10, a rollback with 3."""
        return {"doctor": (0, 10), "rollback": (3,)}.get(self.command.split()[1], (0,))


def steps(document: Path = DOCUMENT) -> list[Step]:
    """Return what the document has people do, in its order.

    A heading or a bold name says on which host; the last file that is named before a block of another
    kind is what that block is written into.
    """
    found: list[Step] = []
    host = file = ""
    for part in re.split(r"^(```\w+\n.*?^```$)", document.read_text(), flags=re.MULTILINE | re.DOTALL):
        kind, _, content = part.removesuffix("```").partition("\n")
        if kind == "```console":
            found += [Step(host, command=line[2:]) for line in content.splitlines() if line.startswith("# ")]
        elif kind.startswith("```"):
            found.append(Step(host, file=file, content=content))
        else:
            for line in part.splitlines():
                host = next((name for name, said in _ON.items() if said.search(line)), host)
                file = next(iter(_FILE.findall(line)[-1:]), file)
    return found
