"""Commands for whoever runs Prometheus: what it scrapes, from the fleets' own files."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from activities.files import load
from orchestrator.cli.output import say
from orchestrator.cli.tree import group
from orchestrator.settings import read_settings
from policies.model.errors import BadInput
from policies.model.fleet import Fleet
from policies.model.value import twice

app = group("Monitoring: what Prometheus scrapes.")

READ_BY_ALL = 0o644
"""Prometheus runs as another user, and addresses of gateways are no secret to this host."""


@app.command("targets")
def targets(
    files: Annotated[
        list[Path] | None, typer.Argument(help="files of fleets; that of the settings when none is named")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="the file for file_sd_configs; printed when left out")
    ] = None,
) -> None:
    """Write every gateway's exporter for Prometheus to find, with its fleet, group and name as labels.

    The file is replaced as a whole, and left as it was when nothing has changed or any fleet's file is wrong.
    """
    found = list(groups(_fleets(files or list(_of_the_settings()))))
    text = json.dumps(found, indent=1) + "\n"
    if to is None:
        say(*text.splitlines())
    else:
        say(f"{to} {'lists' if _replace(to, text) else 'still lists'} {len(found)} gateways")


def groups(fleets: Iterable[Fleet]) -> Iterator[dict[str, Any]]:
    """Yield what `file_sd_configs` reads: one target a gateway, so that each has labels of its own.

    Raises:
        BadInput: Two gateways would be scraped at the same address.
    """
    listed = [(fleet, gateway) for fleet in fleets for gateway in fleet.gateways]
    if same := twice(gateway.metrics_target for _, gateway in listed):
        holders = ", ".join(f"{fleet.name}/{one.name}" for fleet, one in listed if one.metrics_target == same)
        raise BadInput(f"{same} is the exporter of more than one gateway ({holders}); give each its own")
    for fleet, gateway in listed:
        labels = {"fleet": fleet.name, "group": gateway.group, "gateway": gateway.name}
        yield {"targets": [gateway.metrics_target], "labels": labels}


def _of_the_settings() -> Iterator[Path]:
    described = read_settings().fleet
    yield from sorted(described.glob("*.yaml")) if described.is_dir() else [described]


def _fleets(files: Iterable[Path]) -> Iterator[Fleet]:
    fleets = [load(path, Fleet) for path in files]
    if not fleets:
        raise BadInput("there is no file of a fleet; name one, or set PENSTOCK_FLEET")
    yield from sorted(fleets, key=lambda fleet: fleet.name)


def _replace(path: Path, text: str) -> bool:
    """Have this text in the file, never half of it; return whether it was another one before."""
    beside = path.with_name(f".{path.name}.new")  # Prometheus reads files of its pattern, and not this one
    try:
        if path.exists() and path.read_text() == text:
            return False
        beside.write_text(text)
        beside.chmod(READ_BY_ALL)
        beside.replace(path)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadInput(
            f"{path} cannot be written ({why}); name a file in a folder that you may write"
        ) from error
    return True
