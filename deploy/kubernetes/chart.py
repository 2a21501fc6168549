"""The chart of deploy/kubernetes/penstock, rendered by Helm itself."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.cluster import programs
from policies.model.errors import BadInput

HERE = Path(__file__).parent
CHART = HERE / "penstock"
EXAMPLE = HERE / "example.yaml"
MANIFESTS = HERE / "manifests"
NAMESPACE = "penstock"
"""Where the plain manifests are installed; Helm is told another one by --namespace."""
_SOURCE = re.compile(r"^---\n# Source: penstock/templates/([\w-]+\.yaml)\n", flags=re.MULTILINE)
_FAILED = re.compile(r"error calling fail: (.+)$", flags=re.MULTILINE)


def rendered(*values: Path | Mapping[str, Any], namespace: str = NAMESPACE) -> str:
    """Return the chart with these values, the later ones over the earlier, as `helm template` writes it.

    Raises:
        BadInput: the chart refuses them; its own sentence says why.
    """
    command: list[str | Path] = [
        programs.program("helm"),
        "template",
        "penstock",
        CHART,
        "--namespace",
        namespace,
    ]
    given = ""
    for one in values:
        command += ["--values", one if isinstance(one, Path) else "-"]
        given = given if isinstance(one, Path) else json.dumps(one)
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        said = _FAILED.findall(done.stderr)
        raise BadInput(said[-1] if said else done.stderr.strip())
    return str(done.stdout)


def manifests() -> dict[str, str]:
    """Return the plain manifests by their files' names: one for each template that renders anything."""
    found: dict[str, str] = {}
    parts = _SOURCE.split(rendered(EXAMPLE, {"namespace": {"make": True}}))[1:]
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        found[name] = f"{found[name]}---\n{text}" if name in found else text
    return {name: text for name, text in found.items() if any(yaml.safe_load_all(text))}
