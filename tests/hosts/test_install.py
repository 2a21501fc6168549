"""docs/install.md, typed word for word on booted hosts: a live fleet is adopted and upgraded, unnoticed."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import ocserv
from tests.hosts.host import Host
from tests.hosts.installation import GATEWAYS, USERS, Installation, installation, on_trial, parts
from tests.hosts.packages import AGENT, NEWER, ORCHESTRATOR, made, newer
from tests.patience import wait_until

PREFIX = "psti-"
UNIT = f"{AGENT}.service"
CONTROL_UNIT = f"{ORCHESTRATOR}.service"
SAYS = {
    "penstock whoami": "root",
    "penstock check /etc/penstock/agent.yaml": "/etc/penstock/agent.yaml  ok",
    "penstock doctor": "one has just carried out a step",
    "penstock release add sha256:MANIFEST": "signed by publishers",
    **{
        f"penstock fleet adopt edge gw-{number}{more}": said
        for number in range(1, GATEWAYS + 1)
        for more, said in (
            (" --dry-run", f"started by {ocserv.UNIT}, {USERS} sessions"),
            ("", f"1 gateways with {USERS} sessions were adopted as they ran"),
        )
    },
}
"""What a person looks for in the answer, as the document says."""
ADOPTED = {"adopted": ["running", "yes", f"{USERS}"]}
"""What `penstock sessions` says of a gateway whose daemon was adopted with all its users."""
PINGS = 10_000
pytestmark = [pytest.mark.lab, pytest.mark.sweep, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", name="fleet")
def fleet_of_hosts(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(PREFIX, image, tmp_path_factory.mktemp("install")) as fleet:
        yield fleet
        print(f"{fleet.pings()} pings were sent in all")


def test_what_the_document_has_people_type_adopts_live_gateways_unnoticed(
    fleet: Installation,
) -> None:
    control, gateway, metrics, releases, _ = parts()
    serve = [host.wait_for(ocserv.UNIT) for host in fleet.gateways]
    fleet.follow(control, SAYS)
    fleet.copy_trust()
    fleet.at_each(lambda number: fleet.follow(gateway, SAYS, number))
    fleet.follow(metrics, SAYS)
    fleet.share_token()
    fleet.at_each(lambda number: fleet.follow(metrics, SAYS, number), (2, 3))
    fleet.control.run("mkdir", "-p", "/etc/prometheus")
    fleet.copy_exporters()
    fleet.follow(releases, SAYS)
    fleet.copy_trust()
    assert [host.wait_for(ocserv.UNIT) for host in fleet.gateways] == serve
    assert fleet.slots() == {host.name: ADOPTED for host in fleet.gateways}
    assert fleet.lost() == (0, 0)


def test_the_fleet_is_upgraded_and_rolled_back_and_no_user_notices(fleet: Installation) -> None:
    *_, upgrade = parts()
    started = time.monotonic()
    plan, start, rollback = (step for step in upgrade if not step.command.startswith("penstock fleet"))
    fleet.follow([plan, start], {})
    assert promoted(fleet)
    print(f"upgraded in {time.monotonic() - started:.0f} s")
    fleet.follow([rollback], {})
    assert serving(fleet) == {"adopted"}
    assert fleet.lost() == (0, 0)
    assert fleet.pings() > PINGS


def test_an_agents_restart_and_upgrade_in_the_middle_of_a_change_are_noticed_by_nobody(
    fleet: Installation, tmp_path: Path
) -> None:
    deb = newer(made(AGENT), tmp_path)
    for host in fleet.gateways:
        host.put(f"/root/{deb.name}", deb.read_bytes())
    begin(fleet, "agents are upgraded under it")
    (canary,) = on_trial(fleet)
    agents = [host.wait_for(UNIT) for host in fleet.gateways]
    canary.run("systemctl", "restart", UNIT)
    fleet.at_each(lambda number: install(fleet.gateways[number - 1], deb.name))
    assert not {*agents} & {host.wait_for(UNIT) for host in fleet.gateways}
    assert NEWER in canary.run("dpkg-query", "--show", AGENT).out
    fleet.penstock("watch edge", codes=(0,))
    assert promoted(fleet)
    assert fleet.lost() == (0, 0)


def test_a_gateway_is_handed_back_to_its_own_daemon_and_unit_and_no_user_notices(fleet: Installation) -> None:
    *_, upgrade = parts()
    fleet.follow([step for step in upgrade if "hand-back" in step.command], {})
    assert serving(fleet) == {"adopted"}
    wait_until(lambda: all(enabled(host) for host in fleet.gateways))
    assert fleet.lost() == (0, 0)


def test_a_held_trial_outlives_an_upgrade_of_penstock_and_the_change_goes_on_through_a_power_cut(
    fleet: Installation, tmp_path: Path
) -> None:
    deb = newer(made(ORCHESTRATOR), tmp_path)
    fleet.control.put(f"/root/{deb.name}", deb.read_bytes())
    begin(fleet, "penstock is upgraded under it, and loses power")
    (canary,) = on_trial(fleet)
    fleet.penstock("hold edge --reason 'penstock is upgraded'")
    tried, ran = fleet.taking(), fleet.control.wait_for(CONTROL_UNIT)
    assert {name for name, slot in tried.items() if slot != "adopted"} == {canary.name}
    install(fleet.control, deb.name)
    assert fleet.control.wait_for(CONTROL_UNIT) != ran
    assert NEWER in fleet.control.run("dpkg-query", "--show", ORCHESTRATOR).out
    fleet.penstock("status edge", wanted="held by root: penstock is upgraded", codes=(0, 6))
    assert fleet.taking() == tried
    fleet.penstock("resume edge --reason 'it runs again'")
    assert {*on_trial(fleet, wave=2)} == {*fleet.gateways} - {canary}
    fleet.control.cut_power()
    time.sleep(5)
    fleet.control.boot()
    fleet.penstock("whoami", wanted="root")
    fleet.penstock("watch edge", codes=(0,))
    assert promoted(fleet)
    fleet.penstock("rollback edge --reason 'as an exercise' --wait", codes=(3,))
    assert serving(fleet) == {"adopted"}
    assert fleet.lost() == (0, 0)


def test_a_reboot_in_the_middle_of_a_change_is_named_and_no_release_is_blamed(fleet: Installation) -> None:
    begin(fleet, "a host reboots under it")
    (canary,) = on_trial(fleet)
    others = [host for host in fleet.gateways if host is not canary]
    ended, undisturbed = fleet.lost(canary)[0], fleet.lost(*others)
    canary.reboot()
    fleet.penstock("watch edge", codes=(0,))
    assert f"the host of {canary.name} rebooted" in fleet.penstock("status edge --output json")
    assert fleet.lost(canary)[0] - ended == USERS
    assert fleet.lost(*others) == undisturbed
    assert serving(fleet).isdisjoint({"adopted"})


def test_an_agent_that_is_removed_leaves_its_gateway_serving(fleet: Installation) -> None:
    host = fleet.gateways[-1]  # the first one, which is the canary, has rebooted
    before = fleet.lost(host)
    host.run("apt-get", "remove", AGENT, within=200)
    assert host.run("systemctl", "is-active", UNIT, may_fail=True).out.strip() == "inactive"
    assert host.run("cat", "/etc/penstock/agent.pem").out
    assert sum(user["up"] for user in fleet.users.view()["users"] if user["gateway"] == host.name) == USERS
    assert fleet.lost(host) == before


def begin(fleet: Installation, reason: str) -> None:
    """Start an upgrade, and do not wait for it."""
    fleet.penstock(f"upgrade start edge --to 1.3.0 --reason '{reason}'")


def install(host: Host, package: str) -> None:
    """Install a package's file."""
    host.run("apt-get", "install", f"/root/{package}", within=200)


def enabled(host: Host) -> bool:
    """Whether the daemon's own unit is started at boot."""
    return host.run("systemctl", "is-enabled", ocserv.UNIT, may_fail=True).code == 0


def serving(fleet: Installation) -> set[str]:
    """Return the slots that get the new sessions of the gateways."""
    return {*fleet.taking().values()}


def promoted(fleet: Installation) -> bool:
    """Whether new sessions of every gateway go to a slot of ours, and the old daemon keeps its own."""
    slots = fleet.slots()
    kept = all(one["adopted"] == ["running", "no", f"{USERS}"] for one in slots.values())
    return kept and serving(fleet).isdisjoint({"adopted"})
