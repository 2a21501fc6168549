"""Who starts a process waits for what it loads: agents, exporters and commands load only what they use."""

import json
import subprocess
import sys

import pytest

from tests.house.tree import ROOT

ORCHESTRATOR = {"sqlalchemy", "alembic", "psycopg", "fastapi", "starlette", "sse_starlette", "jwt"}
ASKING = {"prometheus_api_client", "pandas", "numpy", "scipy"}
DRAWING = {"rich", "pygments"}
VERIFYING = {"sigstore", "tuf", "requests", "pysequoia", "asn1crypto", "rfc3161_client"}
"""Loaded with the first trust policy that names their kind, and no other."""

LISTED = """
import asyncio, contextlib, json, sys
from orchestrator.cli.main import app
asyncio.run = lambda main: main.close()
with contextlib.suppress(SystemExit):
    app(sys.argv[1:])
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules if sys.modules[name] is not None}
    | {name for name in sys.modules if name.startswith(("orchestrator.", "workflows."))})))
"""

HELPED = """
import contextlib, json, os, sys
from orchestrator.cli.main import app
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(open(os.devnull, "w")):
    app(["--help"])
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def listed(*command: str) -> set[str]:
    ended = subprocess.run(
        [sys.executable, "-c", *command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    found: list[str] = json.loads(ended.stdout)
    return set(found)


@pytest.mark.parametrize(
    ("command", "never"),
    [
        (
            ("agent", "run", "--config", "none.yaml"),
            ORCHESTRATOR | ASKING | DRAWING | VERIFYING | {"uvicorn", "prometheus_client", "grpc"},
        ),
        (("exporter", "none.yaml"), ORCHESTRATOR | ASKING | DRAWING | VERIFYING | {"httpx"}),
    ],
)
def test_a_process_of_a_gateway_loads_nothing_that_it_never_needs(
    command: tuple[str, ...], never: set[str]
) -> None:
    found = listed(LISTED, *command)
    assert f"orchestrator.processes.{command[0]}" in found
    assert found & never == set()
    rooms = ("orchestrator.store", "orchestrator.service", "orchestrator.api.", "orchestrator.publishing")
    assert [name for name in found if name.startswith(rooms)] == []
    assert [name for name in found if name.startswith("workflows.") and name != "workflows.sandbox"] == []


def test_help_loads_neither_the_models_nor_what_draws_nor_what_asks() -> None:
    found = listed(HELPED)
    assert "typer" in found
    models, asking = {"pydantic", "pydantic_core"}, {"httpx", "temporalio", "sqlalchemy", "cryptography"}
    assert found & (models | asking | DRAWING) == set()
