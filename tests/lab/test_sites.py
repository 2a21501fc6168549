"""Two sites behind HAProxy, looked at from outside: `./run bench sites` in its parts, and what must hold."""

import json
import shutil
from typing import Any

import pytest

from deploy.lab import preflight
from tests.house.leftovers import nothing_is_left
from tests.lab.own_state import own_state
from tests.lab.played import played

HANGS_AFTER = 900.0
"""Seconds: every share of every site has a window in which 2,000 addresses connect."""

pytestmark = [
    pytest.mark.lab,
    pytest.mark.sweep,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy"),
    pytest.mark.timeout(HANGS_AFTER),
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each part cost, by its name."""
    found: dict[str, Any] = {}
    for number, names in enumerate(("failing,struck", "lying,clean", "shares")):
        folder = tmp_path_factory.mktemp(f"s{number}")
        report = folder / "out.json"
        with nothing_is_left("pss-"):
            done = played(
                *("-m", "tests.bench", "sites", "--parts", names, "--json", str(report)),
                state=own_state(folder / "s"),
            )
        assert report.exists(), done.stdout + done.stderr
        found |= {part["name"]: part for part in json.loads(report.read_text())["parts"]}
    return found


@pytest.mark.parametrize("name", ["failing", "struck", "lying", "clean"])
def test_a_site_always_carries_its_users_and_nobody_loses_a_session(parts: dict[str, Any], name: str) -> None:
    part = parts[name]
    assert part["samples"] > 300
    assert part["longest_between_samples_s"] < 1
    assert part["below_floor"] == 0, part["least_capacity"]
    assert (part["sessions"], part["sessions_lost"]) == (24, 0)


def test_a_clean_upgrade_is_promoted_and_every_gateway_takes_new_sessions_throughout(
    parts: dict[str, Any],
) -> None:
    assert parts["clean"]["outcome"] == "promoted"
    assert parts["clean"]["all_served"] == parts["clean"]["samples"]


def test_shares_are_kept_within_three_points_over_two_thousand_addresses(parts: dict[str, Any]) -> None:
    part = parts["shares"]
    assert (part["outcome"], part["sessions_lost"]) == ("promoted", 0)
    asked = [(one["site"], one["asked"]) for one in part["shares"]]
    assert asked == [(site, share) for site in ("east", "west") for share in (5, 25, 50)]
    assert all(abs(one["found"] - one["asked"]) < 3 for one in part["shares"]), part["shares"]


def test_a_failing_release_goes_back_by_itself(parts: dict[str, Any]) -> None:
    part = parts["failing"]
    assert part["outcome"] == "rolled_back"
    assert "connect-success" in part["reason"]
    assert part["all_served"] == part["samples"]


def test_haproxies_that_are_struck_in_a_trial_say_what_they_have_to_within_seconds(
    parts: dict[str, Any],
) -> None:
    strikes = parts["struck"]["strikes"]
    assert [one["what"] for one in strikes] == 2 * ["killed", "written on", "reloaded"]
    assert all(one["mended_s"] is not None and one["mended_s"] < 5 for one in strikes), strikes
    assert all(one["lost"] == 0 for one in strikes), strikes
    assert [one["reconnected"] > 0 for one in strikes] == 2 * [True, False, False]
    shares = parts["struck"]["shares"]
    assert [one["asked"] for one in shares] == [5]
    assert all(abs(one["found"] - one["asked"]) < 3 for one in shares), shares


def test_a_haproxy_that_lies_is_noticed_and_its_trial_ends_by_itself(parts: dict[str, Any]) -> None:
    part = parts["lying"]
    assert part["outcome"] == "rolled_back"
    assert part["told"], part
    assert part["trial_over_s"] < 60
