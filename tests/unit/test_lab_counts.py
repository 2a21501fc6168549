"""The lab's counts are of now: a crowd that has died or hangs is reported, never counted as connected."""

import json
import time
from pathlib import Path

import pytest

from deploy.lab import traffic
from deploy.lab.processes import Process
from deploy.lab.traffic import Settings, Users
from policies.model.errors import Unavailable


def users(folder: Path, command: list[str], at: float) -> Users:
    """Return users whose process is this command, with what they counted last."""
    settings = Settings(folder=folder, credentials=folder, password="-")
    found = Users(settings)
    found.process = Process("the users", command, log=folder / "users.log")
    found.process.start()
    (folder / "view.json").write_text(json.dumps({"at": at, "totals": {"up": 24}}))
    return found


def test_counts_of_a_dead_crowd_are_refused_with_the_time_of_the_last_one(tmp_path: Path) -> None:
    """Screens 19: `./run lab counts` reported `up: 24` of users whose process was dead, without a time."""
    crowd = users(tmp_path, ["false"], at=0.0)
    crowd.process.wait(10)
    with pytest.raises(Unavailable, match="the users do not run any more, the last count is of 00:00:00 UTC"):
        crowd.counts()


def test_counts_of_a_crowd_that_hangs_are_refused(tmp_path: Path) -> None:
    crowd = users(tmp_path, ["sleep", "60"], at=time.time() - 2 * traffic._COUNTED_WITHIN)
    try:
        with pytest.raises(Unavailable, match="the users do not count any more"):
            crowd.counts()
    finally:
        crowd.process.kill()


def test_counts_of_a_living_crowd_have_their_time(tmp_path: Path) -> None:
    now = time.time()
    crowd = users(tmp_path, ["sleep", "60"], at=now)
    try:
        assert crowd.counts() == {"at": now, "totals": {"up": 24}}
    finally:
        crowd.process.kill()
