"""Root's last resort on a host as packages leave it: state, ledger and keys belong to the services' user."""

import os
import stat
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import pytest

from orchestrator.store.ledger import Ledger
from tests.patience import PATIENCE
from tests.service.conftest import FLEETS
from tests.service.test_api import under_way

SERVICES = 65_534
SYSTEM_PYTHON = Path("/usr/bin/python3.11")
"""One that every user of the host may run, which a Python in root's home is not."""


def everybody_enters(path: Path) -> bool:
    return all(one.stat().st_mode & stat.S_IXOTH for one in (path, *path.parents))


def test_root_holds_without_an_api_where_keys_and_state_are_the_services_own() -> None:
    """R12, a fresh reader's H3: `payload.keys` of the services' user, as documented, stopped root's hold."""
    tree, packages = Path.cwd(), sysconfig.get_path("purelib")
    if os.geteuid() or not SYSTEM_PYTHON.exists() or not everybody_enters(tree):
        pytest.skip(f"only root becomes another user, who needs {SYSTEM_PYTHON} and a way to {tree}")
    with tempfile.TemporaryDirectory(prefix="penstock-last-resort-") as top:
        state, fleets, keys = Path(top, "state"), Path(top, "fleets"), Path(top, "payload.keys")
        for folder in (state, fleets):
            folder.mkdir()
        Path(top).chmod(0o755)
        (fleets / "edge.yaml").write_text(FLEETS.format(name="edge"))
        keys.write_text("one:" + "5a" * 32 + "\n")
        keys.chmod(0o600)
        url = f"sqlite:///{state / 'ledger.db'}"
        ledger = Ledger.open(url)
        under_way(ledger)
        ledger.close()
        for one in (keys, state, *state.iterdir()):
            os.chown(one, SERVICES, SERVICES)
        done = subprocess.run(
            [SYSTEM_PYTHON, "-m", "orchestrator", "hold", "edge", "--reason", "odd"],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{tree}:{packages}",
                "PENSTOCK_STATE": os.fspath(state),
                "PENSTOCK_LEDGER_URL": url,
                "PENSTOCK_FLEET": os.fspath(fleets),
                "PENSTOCK_PEOPLE": os.fspath(Path(top, "people.yaml")),
                "PENSTOCK_PAYLOAD_KEYS": os.fspath(keys),
                "PENSTOCK_SOCKET": os.fspath(Path(top, "nobody.sock")),
                "PENSTOCK_TEMPORAL_ADDRESS": "127.0.0.1:1",
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        assert "the engine cannot be reached" in done.stderr.splitlines()[-1]
        ledger = Ledger.open(url)
        try:
            assert ledger.audit_entries()[-1].person == "root"
        finally:
            ledger.close()
        assert {one.stat().st_uid for one in state.rglob("*")} == {SERVICES}
