"""The checkout as the house tests read it: files and their syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

from orchestrator.installation import ROOMS

ROOT = Path(__file__).parents[2]
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
PACKAGES = (*ROOMS, "deploy", "tests")


def modules(*packages: str) -> list[Path]:
    """Every Python file of these packages, in order."""
    found = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    assert found
    return found


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def documents() -> list[Path]:
    """Every Markdown file that people read."""
    return [
        *sorted(ROOT.glob("*.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "runbooks").glob("*.md")),
    ]


def dotted(node: ast.expr) -> str:
    """`workflow.defn` for such an expression, and the empty string for anything else."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{dotted(value)}.{attr}"
        case _:
            return ""


def public_definitions(tree: ast.Module) -> Iterator[tuple[str, Definition]]:
    """Public classes and functions with their qualified names; a function's inner ones are its own affair."""
    pending = [(node.name, node) for node in tree.body if isinstance(node, Definition)]
    while pending:
        name, found = pending.pop()
        if found.name.startswith("_"):
            continue
        yield name, found
        if isinstance(found, ast.ClassDef):
            inner = [node for node in found.body if isinstance(node, Definition)]
            pending += [(f"{name}.{node.name}", node) for node in inner]
