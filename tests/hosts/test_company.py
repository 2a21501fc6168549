"""A company's fleet on booted hosts, by the documents' commands alone: what its users lose is counted.

Three gateways with a configuration of their own are adopted and upgraded. Then come settings while the
adopted daemons drain, five kinds of bad releases, a rollback after all of that, a gateway that loses power
in the middle of a change, and a ledger that is restored. Each test goes on where the one before ended.
"""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import packages
from deploy.lab.spoiled import HARM, SpoiledLater, spoil
from tests.drivers.refused_users import Refusal
from tests.hosts import company
from tests.hosts.install_document import CONTROL, Step
from tests.hosts.installation import GATEWAYS, USERS, Installation, installation, on_trial, parts
from tests.lab.runbook_pages import FOLDER, typed
from tests.patience import wait_until

PREFIX = "psts-"
WANTED = (*packages.DAEMON, "dash")
FIRST = "1.3.0"
LOGINS = {"tunnels": True, "per_second": 2.5, "addresses": 50}
"""Each address is at each gateway every 20 s."""
SEEN_WITHIN = 120.0
"""Seconds in which every address that was refused logs in again."""
LATER = 5.0
"""Seconds after a rollback from which no login of a refused user may fail."""
BAD = {
    Refusal.AT_PASSWORD: SpoiledLater.REFUSES_PASSWORDS,
    Refusal.AFTER_PASSWORD: None,
    Refusal.AT_TUNNEL: SpoiledLater.REFUSES_TUNNELS,
    Refusal.CRASHES: SpoiledLater.DIES_IN_TUNNELS,
    Refusal.HANGS: SpoiledLater.HANGS_AT_LOGINS,
}
"""How each kind of bad release refuses; the one without a library has a broken file of a group."""
RESTORE = [one.command for one in typed(FOLDER / "ledger-restore.md") if one.on_host]
"""What the page has root type on the control host, where the backup was made as it says."""
pytestmark = [pytest.mark.lab, pytest.mark.sweep, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", name="adopted")
def adopted_fleet(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The fleet after docs/install.md up to its first release, adopted with all its users."""
    scratch = tmp_path_factory.mktemp("company")
    with installation(PREFIX, image, scratch, set_up=company.set_up, wanted=WANTED, more=LOGINS) as fleet:
        fleet.template, fleet.without = company.template(), company.LEFT_BEHIND
        built(fleet)
        yield fleet
        print(f"{fleet.pings()} pings were sent in all")


@pytest.fixture(scope="module", name="fleet")
def upgraded_fleet(adopted: Installation) -> Installation:
    """The same on the first release, while the adopted daemons drain."""
    adopted.penstock(f"upgrade start edge --to {FIRST} --reason 'the first release' --wait")
    return adopted


def test_a_companys_gateways_are_adopted_and_upgraded_and_no_user_notices(fleet: Installation) -> None:
    assert {name: slots["adopted"] for name, slots in fleet.slots().items()} == {
        host.name: ["running", "no", f"{USERS}"] for host in fleet.gateways
    }
    assert fleet.lost() == (0, 0)


def test_settings_are_in_effect_while_the_adopted_daemons_drain(fleet: Installation) -> None:
    """newcomer 5: it was always reported as failed."""
    describe(fleet, "split-dns: [lab.example]")
    fleet.penstock("config plan edge", wanted="+ split-dns = lab.example")
    fleet.penstock(
        "config start edge --reason 'one more zone' --wait", wanted="3 of 3 gateways use the settings"
    )
    fleet.penstock("fleet drift edge", wanted="Nothing differs")
    assert fleet.lost() == (0, 0)


@pytest.mark.parametrize("how", BAD)
def test_whom_a_bad_release_refused_is_let_in_after_its_rollback(fleet: Installation, how: Refusal) -> None:
    """newcomer 2: 27 logins failed after the rollback, those of nine addresses, without an end."""
    found = meet(fleet, bad(fleet, how), harmful=BAD[how] is not None)
    assert found.before
    assert found.after == 0
    assert fleet.lost() == (0, 0)


def test_a_rollback_goes_back_from_the_release_whatever_came_after_its_promotion(fleet: Installation) -> None:
    """newcomer 10: it undid the settings of one gateway, and not the release."""
    fleet.penstock("rollback edge --reason 'as an exercise' --wait", codes=(3,))
    assert set(fleet.taking().values()) == {"adopted"}
    fleet.penstock(f"upgrade start edge --to {FIRST} --reason 'the exercise is over' --wait")
    assert "adopted" not in fleet.taking().values()
    assert fleet.lost() == (0, 0)


def test_what_hangs_in_a_slot_is_stopped_by_the_command_that_the_next_change_is_refused_with(
    fleet: Installation,
) -> None:
    """It has the slot that the next release needs, beside a slot whose users nobody may end."""
    version = released(fleet)
    fleet.penstock(f"upgrade start edge --to {version} --reason 'the next one' --wait", codes=(5,))
    (command,) = re.findall(r"`penstock (drain end [^`]+)`", fleet.changes()[0]["sentence"])
    fleet.penstock(command.replace("TEXT", "'it hangs'"))
    wait_until(lambda: "unknown" not in str(fleet.slots()), SEEN_WITHIN)
    assert fleet.lost() == (0, 0)


def test_a_change_ends_without_a_gateway_that_died_under_it(fleet: Installation) -> None:
    """newcomer 6: quarantine did not help, and the dead gateway had no name."""
    version = released(fleet)
    fleet.penstock(f"upgrade start edge --to {version} --reason 'one of its gateways dies'")
    (canary,) = on_trial(fleet)
    dead, other = (host for host in fleet.gateways if host is not canary)
    before = fleet.lost(canary, other)
    dead.cut_power()
    fleet.penstock("status edge", wanted=f"penstock gateway quarantine edge {dead.name}", codes=(0, 6))
    fleet.penstock(f"gateway quarantine edge {dead.name} --reason 'its power supply is broken'")
    fleet.penstock("watch edge", codes=(0,))
    assert _versions(fleet) == [version]
    dead.boot()
    fleet.users.wait_until_up(120)
    assert fleet.lost(canary, other) == before
    assert _versions(fleet) == [FIRST, version]
    fleet.penstock(f"gateway return edge {dead.name} --reason 'it has another power supply'")


def test_a_ledger_is_restored_and_its_fleet_goes_on(fleet: Installation) -> None:
    """newcomer 8: the path was another one, root's files stopped the service, and the audit was BROKEN."""
    lost = fleet.lost()
    fleet.type(fleet.control, "mkdir -p /srv/backup")
    fleet.penstock("ledger backup /srv/backup/ledger.jsonl")
    fleet.type(fleet.control, "systemctl stop penstock")
    for command in RESTORE:
        assert not fleet.type(fleet.control, command).code
    fleet.type(fleet.control, "systemctl start penstock")
    fleet.penstock("audit verify", wanted="OK ")
    assert not [one for one in fleet.changes() if one["outcome"] is None]
    assert fleet.lost() == lost


def _versions(fleet: Installation) -> list[str]:
    """Return what serves on the gateways that answer now."""
    fleet.slots()  # which asks all of them
    told = json.loads(fleet.penstock("fleet show edge --output json"))["data"]["standing"]
    return sorted(told["versions"])


def describe(fleet: Installation, settings: str) -> None:
    """Write these settings into fleet.yaml, in place of others there."""
    file = fleet.control.disk / "etc/penstock/fleet.yaml"
    text = re.sub(r"^settings: .*\n", "", file.read_text(), flags=re.MULTILINE)
    fleet.control.put("/etc/penstock/fleet.yaml", f"{text}settings: {{{settings}}}\n")


def built(fleet: Installation) -> None:
    """Type docs/install.md up to the first release, whose tree has what the adoption left behind."""
    control, gateway, metrics, releases, _ = parts()
    fleet.follow(control, {})
    fleet.copy_trust()
    numbers = range(1, GATEWAYS + 1)
    adoption = [step for step in gateway if "fleet adopt" in step.command]
    fleet.at_each(lambda number: fleet.follow([step for step in gateway if step not in adoption], {}, number))
    for number in numbers:
        fleet.follow(adoption, {}, number)
    fleet.follow(metrics, {})
    fleet.share_token()
    fleet.at_each(lambda number: fleet.follow(metrics, {}, number), (2, 3))
    fleet.control.run("mkdir", "-p", "/etc/prometheus")
    fleet.copy_exporters()
    company.copy_files(fleet.gateways[0], fleet.control)
    commands = iter(company.what_the_tree_takes_along())
    taken = [Step(CONTROL, command=command.replace("./tree", "/root/tree")) for command in commands]
    for step in releases:
        if step.command.startswith("penstock release tree"):
            fleet.follow(taken, {})
            fleet.type(fleet.control, "echo daemon:x:1: >>/root/tree/etc/group")
        else:
            fleet.follow([step], {})
    fleet.copy_trust()


def bad(fleet: Installation, how: Refusal) -> str:
    """Release what refuses its users in this way; return its version."""
    library = BAD[how]
    return released(fleet, company.spoil_group if library is None else lambda tree: spoil(tree, library))


def released(fleet: Installation, change: Callable[[Path], None] = lambda tree: None) -> str:
    """Build, sign and add one more release as install.md does the first one; return its version."""
    serial = 3 + len(fleet.changes())
    version = f"{FIRST}-{serial}"
    tree = fleet.control.disk / "root" / version
    shutil.copytree(fleet.control.disk / "root/tree", tree, symlinks=True)
    change(tree)
    *_, releases, _ = parts()
    before = f" --release {fleet.printed['sha256:MANIFEST']}"
    for step in releases:
        command = step.command.replace("/root/tree", f"/root/{version}")
        command = command.replace(f"--version {FIRST}", f"--version {version}")
        command = re.sub(r"--serial \d+", f"--serial {serial}", command)
        if command.startswith("penstock release index"):
            command += before
        if re.match("penstock release (build|sign|index|add)", command):
            fleet.follow([replace(step, command=command)], {})
    return version


@dataclass(frozen=True)
class Refused:
    """What users counted at one bad release."""

    before: int
    """Logins that failed on it, and began up to 5 s after the rollback."""
    after: int
    """Logins that failed and began later than that."""
    next_good_s: float
    """From the rollback to its own next good login, of the refused address that waited longest."""


def meet(fleet: Installation, version: str, *, harmful: bool) -> Refused:
    """Have users meet a bad release until each whom it refused had a good login again.

    With `harmful` it turns bad once it is on trial, since a probe would find it before.
    """
    began = time.time()
    fleet.penstock(f"upgrade start edge --to {version} --reason 'as an exercise'", codes=(0, 3))
    (canary,) = on_trial(fleet)
    if harmful:
        canary.run("sh", "-c", f"touch $(ls -tdc /var/lib/penstock/versions/*/root | head -1)/{HARM}")
    fleet.penstock("watch edge", codes=(3,))
    (ended,) = [one for one in fleet.changes() if one["release"] == version]
    assert ended["outcome"] == "rolled_back"
    back = datetime.fromisoformat(ended["ended"]).timestamp()
    wait_until(lambda: not _still_refused(fleet, began, back), SEEN_WITHIN)
    bad = [one for one in _logins(fleet, began) if one["outcome"] != "accepted"]
    waited = [_next_good(fleet, one["address"], one["gateway"], back) for one in bad]
    found = Refused(
        before=sum(one["at"] <= back + LATER for one in bad),
        after=sum(one["at"] > back + LATER for one in bad),
        next_good_s=round(max(waited), 1),
    )
    print(version, ended["sentence"], found)
    return found


def _still_refused(fleet: Installation, began: float, back: float) -> set[tuple[str, str]]:
    """Return the addresses that were refused at a gateway and had no good login there after the rollback."""
    bad, good = set(), set()
    for one in _logins(fleet, began):
        key = (one["gateway"], one["address"])
        if one["outcome"] != "accepted":
            bad.add(key)
        elif one["at"] > back:
            good.add(key)
    return bad - good


def _next_good(fleet: Installation, address: str, gateway: str, back: float) -> float:
    """Return how long after the rollback the next good login of that address ended."""
    return min(
        float(one["at"] + one["seconds"]) - back
        for one in _logins(fleet, back)
        if (one["gateway"], one["address"], one["outcome"]) == (gateway, address, "accepted")
    )


def _logins(fleet: Installation, since: float) -> list[dict[str, Any]]:
    lines = (fleet.logins.settings.folder / "logins.jsonl").read_text().splitlines()
    return [one for one in map(json.loads, lines) if one["at"] > since]
