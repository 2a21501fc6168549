"""Two sites behind HAProxy, looked at from outside: `./run bench sites` in its parts, and what must hold."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import preflight
from tests.house.leftovers import nothing_is_left
from tests.lab.own_state import own_state
from tests.lab.played import HANGS_AFTER, played

pytestmark = [
    pytest.mark.lab,
    pytest.mark.sweep,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy"),
    pytest.mark.timeout(HANGS_AFTER),
]


def measured(folder: Path, *names: str) -> dict[str, Any]:
    """Return what each of these parts cost in one lab, by its name."""
    report = folder / "out.json"
    with nothing_is_left("pss-"):
        done = played(
            *("-m", "tests.bench", "sites", "--parts", ",".join(names), "--json", str(report)),
            state=own_state(folder / "s"),
        )
    assert report.exists(), done.stdout + done.stderr
    return {part["name"]: part for part in json.loads(report.read_text())["parts"]}


@pytest.fixture(scope="module")
def failing_and_struck(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measured(tmp_path_factory.mktemp("s"), "failing", "struck")


@pytest.fixture(scope="module")
def lying_and_clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measured(tmp_path_factory.mktemp("s"), "lying", "clean")


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    part: dict[str, Any] = measured(tmp_path_factory.mktemp("s"), "shares")["shares"]
    return part


def require_carried(part: dict[str, Any]) -> None:
    """Fail unless the site could always carry its users, and none of them lost a session."""
    assert part["samples"] > 300
    assert part["longest_between_samples_s"] < 1
    assert part["below_floor"] == 0, part["least_capacity"]
    assert (part["sessions"], part["sessions_lost"]) == (24, 0)


@pytest.mark.parametrize("name", ["failing", "struck"])
def test_a_site_always_carries_its_users_when_its_release_fails_or_its_haproxies_are_struck(
    failing_and_struck: dict[str, Any], name: str
) -> None:
    require_carried(failing_and_struck[name])


@pytest.mark.parametrize("name", ["lying", "clean"])
def test_a_site_always_carries_its_users_when_all_is_well_or_a_haproxy_lies(
    lying_and_clean: dict[str, Any], name: str
) -> None:
    require_carried(lying_and_clean[name])


def test_a_clean_upgrade_is_promoted_and_every_gateway_takes_new_sessions_throughout(
    lying_and_clean: dict[str, Any],
) -> None:
    part = lying_and_clean["clean"]
    assert part["outcome"] == "promoted"
    assert part["all_served"] == part["samples"]


def test_shares_are_kept_within_three_points_over_two_thousand_addresses(shares: dict[str, Any]) -> None:
    assert (shares["outcome"], shares["sessions_lost"]) == ("promoted", 0)
    asked = [(one["site"], one["asked"]) for one in shares["shares"]]
    assert asked == [(site, share) for site in ("east", "west") for share in (5, 25, 50)]
    assert all(abs(one["found"] - one["asked"]) < 3 for one in shares["shares"]), shares["shares"]


def test_a_failing_release_goes_back_by_itself(failing_and_struck: dict[str, Any]) -> None:
    part = failing_and_struck["failing"]
    assert part["outcome"] == "rolled_back"
    assert "connect-success" in part["reason"]
    assert part["all_served"] == part["samples"]


def test_haproxies_that_are_struck_in_a_trial_say_what_they_have_to_within_seconds(
    failing_and_struck: dict[str, Any],
) -> None:
    strikes = failing_and_struck["struck"]["strikes"]
    assert [one["what"] for one in strikes] == 2 * ["killed", "written on", "reloaded"]
    assert all(one["mended_s"] is not None and one["mended_s"] < 5 for one in strikes), strikes
    assert all(one["lost"] == 0 for one in strikes), strikes
    assert [one["reconnected"] > 0 for one in strikes] == 2 * [True, False, False]
    shares = failing_and_struck["struck"]["shares"]
    assert [one["asked"] for one in shares] == [5]
    assert all(abs(one["found"] - one["asked"]) < 3 for one in shares), shares


def test_a_haproxy_that_lies_is_noticed_and_its_trial_ends_by_itself(
    lying_and_clean: dict[str, Any],
) -> None:
    part = lying_and_clean["lying"]
    assert part["outcome"] == "rolled_back"
    assert part["told"], part
    assert part["trial_over_s"] < 60
