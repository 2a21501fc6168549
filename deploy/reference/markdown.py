"""Plain Markdown: tables whose cells hold one line each."""

from collections.abc import Iterable, Sequence

NOTICE = "<!-- Written by `./run reference` from the code; change it there. -->"


def page(title: str, *parts: str) -> str:
    """Return a document of these parts, each set apart by an empty line."""
    return "\n\n".join([f"# {title}", NOTICE, *(part.strip() for part in parts if part.strip())]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; what would end a cell is written so that it does not."""
    lines = [_row(head), "|" + "---|" * len(head), *(_row(row) for row in rows)]
    return "\n".join(lines)


def prose(text: str) -> str:
    """Return a docstring as paragraphs of one line each."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def sentence(text: str) -> str:
    """Return a description as a cell has it: one line that begins small and ends without a full stop."""
    line = " ".join(text.split()).removesuffix(".")
    second = line[1:2]
    return line if second.isupper() or not second.isalpha() else line[:1].lower() + line[1:]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("\n", " ").replace("|", r"\|") for cell in cells) + " |"
