"""Drills as people play them: a lab of its own, the failure, and users who are safe within the budget."""

import json
from pathlib import Path

import pytest

from deploy.lab import preflight, synapse
from deploy.lab.drills import IN_A_CHAT
from policies.model.drill import DrillOutcome, DrillReport
from tests.house.leftovers import nothing_is_left
from tests.lab.own_state import own_state
from tests.lab.played import HANGS_AFTER, played

pytestmark = [
    pytest.mark.lab,
    pytest.mark.sweep,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(HANGS_AFTER),
]

HOME = Path(__file__).parents[2]
PLAYED = ("rollback-by-chat",)
"""Those that nothing else tries as a person does it.

Each builds a lab of its own, a minute and a half. A rollback after promotion is in the runbook
`rollback-waits`; lost control planes, rebooted hosts and stolen agents are in `tests/chaos`, `tests/hosts`
and `tests/relay`; `penstock drill run` plays them with their seconds.
"""


@pytest.mark.parametrize("name", PLAYED)
def test_users_are_safe_within_the_budget_and_nobody_is_cut(name: str, tmp_path: Path) -> None:
    if name in IN_A_CHAT and (why := synapse.why_not_here()) is not None:
        pytest.skip(why)
    file = tmp_path / "result.json"
    with nothing_is_left("psd-"):
        command = ("-m", "deploy.lab.drills", "run", name, "--json", str(file))
        done = played(*command, state=own_state(tmp_path / "state"))
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(file.read_text())
    assert said.pop("passed") is True
    report = DrillReport.model_validate(said)
    assert (report.outcome, report.sessions_lost) == (DrillOutcome.PASSED, 0), done.stdout
