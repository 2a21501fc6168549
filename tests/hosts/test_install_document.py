"""docs/install.md stays short, and says of every step on which host it is done."""

from pathlib import Path

import yaml

from activities.files import load
from policies.judge.gates.gauge_ratio import GaugeRatio
from policies.model.fleet import Fleet
from policies.model.gates import GatePolicy
from tests.hosts.install_document import CONTROL, GATEWAY, steps
from tests.hosts.installation import shortened

MOST_COMMANDS = 15
GATES = Path("deploy/prometheus/gates.yaml")


def test_the_first_gateway_is_adopted_with_fifteen_commands_or_fewer() -> None:
    commands = [step.command for step in steps() if step.command]
    assert 5 < commands.index("penstock fleet adopt edge gw-1") < MOST_COMMANDS


def test_every_step_of_the_document_has_its_host_and_its_file() -> None:
    assert {step.host for step in steps()} == {CONTROL, GATEWAY}
    assert [step.file for step in steps() if step.content] == [
        "/etc/penstock/fleet.yaml",
        "/etc/penstock/trust.yaml",
        "/etc/penstock/agent.yaml",
        "/etc/prometheus/prometheus.yml",
        "/etc/nginx/conf.d/releases.conf",
        "/etc/penstock/trust.yaml",
        "/root/ocserv.conf.template",
    ]


def test_the_fleet_of_the_document_asks_no_second_person_of_root_who_is_alone() -> None:
    """A day after the first upgrade root was refused every rollback, and nobody else was known."""
    written = {step.file: step.content for step in steps() if step.content}
    assert not any("people.yaml" in file for file in written)
    fleet = Fleet.model_validate(yaml.safe_load(written["/etc/penstock/fleet.yaml"]))
    rules = fleet.rollback
    assert (rules.confirm_other_release, rules.confirm_whole_group) == (False, False)


def test_the_hosts_gates_ask_what_the_packages_do_and_are_shortened_in_time_alone() -> None:
    """newcomer 1: the hosts had the lab's gates, which do not ask for the sessions of a daemon."""
    shipped = load(GATES, GatePolicy)
    shorter = GatePolicy.model_validate(yaml.safe_load(shortened(GATES.read_text())))
    times = {name: getattr(shipped, name) for name in ("scrape", "fresh_within", "baseline", "window")}
    gates = tuple(
        one.model_copy(update={"over": before.over})
        if isinstance(one, GaugeRatio) and isinstance(before, GaugeRatio)
        else one
        for one, before in zip(shorter.gates, shipped.gates, strict=True)
    )
    assert shorter.model_copy(update={**times, "gates": gates}) == shipped
