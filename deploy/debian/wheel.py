"""Our own wheel, which every environment is laid out with, and where the others' are kept."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from policies.model.errors import Unavailable

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / ".state" / "wheels"


def built(into: Path, moment: int) -> Path:
    """Make the wheel in the folder, its files as old as this moment, in seconds; return it.

    Raises:
        Unavailable: It cannot be built.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-wheel-") as folder:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
        environ = os.environ | {"SOURCE_DATE_EPOCH": str(moment)}
        done = subprocess.run(build, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"the wheel cannot be built: {done.stderr.strip()}")
        (made,) = Path(folder).glob("*.whl")
        return Path(shutil.copy(made, into / made.name))
