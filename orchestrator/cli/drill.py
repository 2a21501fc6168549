"""Commands that rehearse failures; never on a fleet with users, only on a lab made for it."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.tree import group
from policies.model.errors import BadInput

app = group("Rehearse failures on a lab, with the seconds of every step.")

_DRILLS = "deploy.lab.drills"


@app.command("list")
def list_drills() -> None:
    """Say what can be rehearsed, and within which time users must be safe."""
    raise typer.Exit(_hand_over("list"))


@app.command("run")
def run(
    name: Annotated[str, typer.Argument(help="which one, as `drill list` names it")],
    json: Annotated[Path | None, typer.Option("--json", help="write the seconds to this file")] = None,
) -> None:
    """Build a lab, let it happen there, show how many seconds each step took, and remove the lab."""
    raise typer.Exit(_hand_over("run", name, *(["--json", str(json)] if json else [])))


def _hand_over(*arguments: str) -> int:
    """Let the lab's own process do it; the lab comes with a checkout, not with the wheel.

    Raises:
        BadInput: there is no lab in this installation.
    """
    if find_spec("deploy") is None or find_spec(_DRILLS) is None:
        raise BadInput("drills need the lab, which is in a checkout only: ./run penstock drill list")
    return subprocess.run([sys.executable, "-m", _DRILLS, *arguments], check=False).returncode
