"""Which tests run, which of them side by side, and in which order.

What is marked `sweep` takes long and runs only with --all, after everything else that its process has, or
where its own file is named. Continuous integration runs the usual tests and then, with --slow-sample, a
sample of the slow ones for fifteen minutes (`tests/slow_sample.py`).

`./run test` runs four processes of pytest, since most tests wait half of their time, and three with --all,
whose sweeps measure more. What makes gateways, networks or whole labs on this machine goes one after the
other in one of them: two labs beside each other spoil what is measured in either. What is done to the one
control plane of `tests/cluster` goes one after the other in a second one. Every other file is a unit of its
own, and so is what drivers are asked without any gateway. Each test of workflows is one: they share nothing
but a server that each process has, and the longest files, which are the last ones, would keep one process
busy while the others have nothing left.

Each process has a folder for temporary files, so that none takes the other's for something left behind.
"""

import ast
import functools
import gc
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests import slow_sample
from tests.cluster import building

ON_THIS_HOST = (
    "tests/lab/",
    "tests/drivers/",
    "tests/chaos/",
    "tests/hosts/",
    "tests/house/test_leftovers.py",
    "tests/cluster/test_nodes",
)
ON_LOOPBACK = tuple(
    f"tests/drivers/test_{name}.py"
    for name in (
        "certificate_renewal",
        "certificates_by_acme",
        "certificates_by_vault",
        "credentials",
        "every_notice_sink",
        "expected_in_a_cluster",
        "hostile_manifests",
        "index_renewal",
        "notice_mail",
        "notice_sinks",
        "ocserv_config",
        "ocserv_log",
        "ocserv_names",
        "ocserv_own_config",
        "pace_of_calls",
        "programs",
        "prometheus",
        "prometheus_history",
        "release_refusals",
        "release_signing",
        "release_tree",
        "rights",
        "shared_questions",
        "signature_mutations",
        "signatures",
        "source_deadlines",
        "source_http",
        "source_oci",
        "store",
        "token_signing",
    )
)
"""Drivers' tests that touch nothing of this host but files and ports of their own."""
BY_THEMSELVES = "tests/workflows/"
"""Tests that share no more with others of their file than with those of any other."""
THIS_HOST, ON_THE_CLUSTER = "this host", "a cluster"
"""The longest units: what is done to this host, and to the one control plane."""
PROCESSES = 4
UMASK = 0o022
LINES_AT_ONCE = 12
_SIDE = os.environ.get("PYTEST_XDIST_WORKER")
_BEGAN = time.monotonic()

# CPython 3.11 counts in one place how deep the syntax trees are that are being made: where another is begun
# meanwhile, by another thread or by what garbage says at its end, the first ends in "AST constructor
# recursion depth mismatch". Each traceback makes one.
_PARSE, _ONE_AT_A_TIME = ast.parse, threading.RLock()


@functools.wraps(_PARSE)
def _parse(*arguments: Any, **named: Any) -> Any:
    with _ONE_AT_A_TIME:
        collects = gc.isenabled()
        gc.disable()
        try:
            return _PARSE(*arguments, **named)
        finally:
            if collects:
                gc.enable()


ast.parse = _parse

# An example that takes long on a busy machine is no broken promise; what hangs is ended by pytest's timeout.
settings.register_profile("usual", deadline=None, max_examples=40)
settings.register_profile("all", deadline=None, max_examples=100)


class SideBySide(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Deals out whole files, tests of workflows one by one, and what is done to this host as one."""

    def _split_scope(self, nodeid: str) -> str:
        return _unit_of(nodeid)


def _unit_of(nodeid: str) -> str:
    """Return what this test is dealt out with."""
    file = nodeid.partition("::")[0]
    if file.startswith(building.FOLDER) and not file.startswith(ON_THIS_HOST):
        return ON_THE_CLUSTER
    if file.startswith(BY_THEMSELVES):
        return nodeid
    return THIS_HOST if file.startswith(ON_THIS_HOST) and file not in ON_LOOPBACK else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SideBySide:
    return SideBySide(config, log)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes two cores keep busy; sweeps leave some of them for what they measure."""
    slow = config.getoption("--all") or config.getoption("--slow-sample")
    return PROCESSES - 1 if slow else PROCESSES


class FailuresAtOnce:
    """Prints a failure when it happens: a run that is ended before its summary still says what broke."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.failed:
            return
        failed = f"{report.nodeid} failed in {report.when} after {report.duration:.1f} s:"
        self._terminal.line(f"\n{failed}", red=True)
        self._terminal.line("\n".join(report.longreprtext.splitlines()[-LINES_AT_ONCE:]))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests marked sweep, too")
    parser.addoption(
        "--slow-sample",
        metavar="COMMIT",
        help="run only tests marked sweep, in an order that this commit's hash decides",
    )
    parser.addoption(
        "--slow-minutes",
        type=float,
        default=15.0,
        metavar="MINUTES",
        help="with --slow-sample: start no test later than this many minutes after the first (default: 15)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests of a sample of slow ones for which no time is left."""
    minutes: float = item.config.getoption("--slow-minutes")
    if item.config.getoption("--slow-sample") and time.monotonic() - _BEGAN > minutes * 60:
        pytest.skip(f"this sample of slow tests starts none after {minutes:g} minutes")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for no cycles among the modules and tests that stay: that takes seconds.

    What was collected is left out of every later look, too.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the sweeps out, and say so in the count of what was deselected; the longest units come first.

    With --all the sweeps come last, and a cluster, whose programs are being built meanwhile, later still.
    With --slow-sample only the sweeps run, in the order of the sample. A named file runs whole.
    """
    if commit := config.getoption("--slow-sample"):
        slow = [item for item in items if item.get_closest_marker("sweep")]
        config.hook.pytest_deselected(items=[item for item in items if not item.get_closest_marker("sweep")])
        of_each = {item.nodeid: item for item in slow}
        items[:] = sorted((of_each[name] for name in slow_sample.ordered(of_each, commit)), key=_shortness)
        return
    if config.getoption("--all"):
        items.sort(key=_lateness)
        return
    named = {Path(path.partition("::")[0]).absolute() for path in config.args}
    usual, sweeps = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        left_out = item.get_closest_marker("sweep") and item.path not in named
        (sweeps if left_out else usual).append(item)
    items[:] = sorted(usual, key=_shortness)
    if sweeps:
        config.hook.pytest_deselected(items=sweeps)


def _shortness(item: pytest.Item) -> int:
    """Return how soon the test's unit begins, so that no long one is left when the others have ended."""
    units = (THIS_HOST, ON_THE_CLUSTER)
    unit = _unit_of(item.nodeid)
    return units.index(unit) if unit in units else len(units)


def _lateness(item: pytest.Item) -> tuple[bool, bool]:
    return item.nodeid.startswith(building.FOLDER), item.get_closest_marker("sweep") is not None


def _wants_a_cluster(config: pytest.Config) -> bool:
    folder = config.rootpath / building.FOLDER
    asked = [Path(path.partition("::")[0]).absolute() for path in config.args]
    return any(folder.is_relative_to(path) or path.is_relative_to(folder) for path in asked)


def pytest_sessionstart(session: pytest.Session) -> None:
    """With --all, begin to build a cluster's programs where they are not here yet."""
    config = session.config
    if _SIDE is not None or not config.getoption("--all") or not _wants_a_cluster(config):
        return
    if (process := building.begin()) is not None:
        config.add_cleanup(lambda: building.end(process))
        terminal = config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.write_line(f"{building.missing()} is being built meanwhile, for tests of a cluster")


def pytest_runtest_teardown() -> None:
    """Give back the rights of new files: what a test runs in this process as a program takes them away."""
    os.umask(UMASK)


@pytest.hookimpl(trylast=True)  # the terminal's reporter is made by a plugin of pytest
def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile(
        "all" if config.getoption("--all") or config.getoption("--slow-sample") else "usual"
    )
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and _SIDE is None:
        config.pluginmanager.register(FailuresAtOnce(terminal))
    if _SIDE is not None:
        folder = tempfile.mkdtemp(prefix=f"pytest-{_SIDE}-")
        Path(folder).chmod(0o755)  # daemons that run as nobody look into it
        os.environ["TMPDIR"] = tempfile.tempdir = folder


def pytest_unconfigure() -> None:
    if _SIDE is not None:
        shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)
        tempfile.tempdir = None
