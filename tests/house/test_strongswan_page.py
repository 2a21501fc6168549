"""What docs/strongswan.md has people write is taken."""

import re
from pathlib import Path
from typing import Any

import yaml

from policies.model.fleet import UNMADE_TESTS, Fleet
from policies.model.release_tests import Asked, Method

PAGE = (Path(__file__).parents[2] / "docs" / "strongswan.md").read_text()


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
