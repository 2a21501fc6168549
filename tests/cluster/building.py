"""The programs of a cluster, for tests: what `./run test` leaves out without them, `./run test --all` builds.

To build them takes ten minutes on two idle cores, which is longer than the usual tests may take; so these
only use what is there. With --all the build begins with the session, in whatever time nobody else wants, and
the tests of the cluster, which come last, wait for it.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.cluster import programs
from policies.model.errors import PenstockError

FOLDER = "tests/cluster/"
SETS_OF = {
    "plane": programs.CONTROL_PLANE,
    "driven": (*programs.CONTROL_PLANE, "helm"),
    "installed": (*programs.CONTROL_PLANE, "helm"),
    "chart": ("helm",),
    "cluster": programs.NODES,
    "demonstrated": (*programs.NODES, "helm"),
    "cluster_lab": (*programs.NODES, "helm"),
}
"""What fixtures of these tests need, by their names."""
TESTED = tuple(dict.fromkeys(name for sets in SETS_OF.values() for name in sets))
_ROOT = Path(__file__).parents[2]
_failed: dict[tuple[str, ...], str] = {}
"""Why sets are not there, once somebody has waited for them."""


def begin() -> "subprocess.Popen[bytes] | None":
    """Build what is missing in a process of its own, with the lowest priority; None when nothing is."""
    if programs.why_not_here(*TESTED) is None:
        return None
    command = [sys.executable, "-m", "deploy.cluster.programs", "--idle", *TESTED]
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def missing() -> str:
    """Return what is not built yet, in words."""
    return " and ".join(str(one) for one in programs.chosen(*TESTED) if not one.is_built)


def end(building: "subprocess.Popen[bytes]") -> None:
    """End a build that is still under way; what the compiler has kept is not lost."""
    if building.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(building.pid, signal.SIGKILL)
    building.wait()


def await_for(item: pytest.Item) -> None:
    """Return when this test's programs are built, or cannot be: before the clock of the test runs."""
    sets = _sets_of(item)
    if not sets or sets in _failed:
        return
    try:
        programs.ensure(*sets, tell=lambda _: None)
    except PenstockError as why:
        _failed[sets] = str(why)


def leave_out(items: list[pytest.Item]) -> None:
    """Skip what needs programs that are not here, with a sentence on how they come."""
    for item in items:
        sets = _sets_of(item)
        if sets and (why := programs.why_not_here(*sets)) is not None:
            item.add_marker(pytest.mark.skip(f"{why}; ./run test --all does so by itself"))


def insist(request: pytest.FixtureRequest) -> None:
    """Return when the programs of this fixture are there; the test fails without them."""
    sets = SETS_OF[request.fixturename or ""]
    if (why := programs.why_not_here(*sets)) is not None:
        pytest.fail(_failed.get(sets, why), pytrace=False)


def _sets_of(item: pytest.Item) -> tuple[str, ...]:
    asked = [SETS_OF[name] for name in getattr(item, "fixturenames", ()) if name in SETS_OF]
    return tuple(dict.fromkeys(name for sets in asked for name in sets))
