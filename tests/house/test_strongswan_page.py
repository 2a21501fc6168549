"""What docs/strongswan.md has people write is taken."""

import re
from pathlib import Path
from typing import Any

import yaml

from activities.drivers.daemon.strongswan.template import require_template
from orchestrator.processes.agent_file import ProbeSettings
from policies.model.fleet import UNMADE_TESTS, Fleet
from policies.model.release_tests import Asked, Method

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "strongswan.md").read_text()


def shown(heading: str) -> dict[str, Any]:
    section = PAGE.partition(f"## {heading}")[2]
    (example,) = re.findall(r"^```yaml\n(.+?)^```$", section.partition("\n## ")[0], re.MULTILINE | re.DOTALL)
    return dict(yaml.safe_load(example))


def test_the_fleet_of_the_page_is_one_and_waits_for_no_test_that_is_never_made() -> None:
    fleet = Fleet.model_validate(shown("fleet.yaml"))
    assert fleet.tests is not None
    assert fleet.tests.skip == UNMADE_TESTS["strongswan"]
    made = fleet.tests.asked(Method.TRIED)
    assert made == (Asked.FILES, Asked.CONFIG, Asked.LOGIN, Asked.PINGS_LOST)


def test_the_agents_file_of_the_page_names_what_the_example_of_a_template_asks_for() -> None:
    agent, text = (
        shown("agent.yaml"),
        (ROOT / "deploy/examples/strongswan.conf.template").read_text(),
    )
    require_template(text, "strongswan.conf.template")
    assert {*re.findall(r"\$credential_([a-z]+)", text)} == {*agent["credentials"]}
    assert ProbeSettings.model_validate(agent["probe"]).password is None
    assert agent["product"] == agent["gateway"]["daemon"] == shown("fleet.yaml")["product"]
