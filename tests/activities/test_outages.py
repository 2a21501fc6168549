"""A canary whose host is away is no failure of its release, however often that happens and who watches."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from activities.drivers.metrics import ports
from activities.drivers.metrics.ports import PortProbes
from activities.files import load
from activities.observation import ObservationActivities
from policies.judge.counts import Series
from policies.judge.reading import Reading
from policies.judge.window import WindowState, fold_reading
from policies.model.gates import GatePolicy
from policies.model.verdict import Cohorts
from tests.drivers.test_ports import Agents, OneGateway

HOST = "gw-1:9500"
ONE = frozenset({HOST})
GATES = load(Path(__file__).parents[2] / "deploy/lab/gates.yaml", GatePolicy)
COHORTS = Cohorts(canary=(HOST,), control=("gw-2:9500",), expected={})


class Outage:
    """One canary whose metrics, users' port and agent are there or away, watched by two workers."""

    def __init__(self) -> None:
        self.away = False
        self.agents = Agents()
        self.workers = [
            ObservationActivities(self, probes=PortProbes(OneGateway("ocserv", 443), self.agents))
            for _ in range(2)
        ]
        self.state = WindowState()

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        del lookback
        if selector != GATES.presence:
            return ()
        up = {name: 0.0 if self.away and name == HOST else 1.0 for name in instances}
        return tuple(Series({"instance": name}, ((at.timestamp(), is_up),)) for name, is_up in up.items())

    async def connects(self, *_: object) -> bool | None:
        return None if self.away else True

    async def tick(self, worker: int = 0) -> Reading:
        await asyncio.sleep(0.02)
        found = await self.workers[worker].read(GATES, COHORTS, self.state)
        self.state, _, _ = fold_reading(GATES, GATES.window, COHORTS, self.state, found)
        return found

    async def agent_answers(self) -> None:
        await asyncio.sleep(0.02)
        self.agents.said["gw-1"] = datetime.now(UTC)
        await asyncio.sleep(0.02)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    made = Outage()
    monkeypatch.setattr(ports, "_connects", made.connects)
    return made


@pytest.mark.parametrize("seen_back", [True, False])
@pytest.mark.parametrize("worker", [0, 1])
async def test_a_host_that_is_away_a_second_time_is_as_absent_as_the_first_time(
    outage: Outage, worker: int, seen_back: bool
) -> None:
    """It was a daemon that the release had killed: a probe remembered when its port first fell silent."""
    await outage.agent_answers()
    outage.away = True
    first = await outage.tick()
    assert (first.unreachable, first.absent) == (frozenset(), ONE)
    outage.away = False
    if seen_back:
        await outage.tick(worker)
    else:  # nothing watched meanwhile
        earlier = outage.state.last - 86_400
        silent = {name: since - 86_400 for name, since in outage.state.silent.items()}
        outage.state = outage.state.model_copy(update={"last": earlier, "silent": silent})
    await outage.agent_answers()
    outage.away = True
    second = await outage.tick()
    assert (second.unreachable, second.absent) == (frozenset(), ONE)


@pytest.mark.parametrize("worker", [0, 1])
async def test_a_daemon_that_dies_with_its_exporter_is_found_by_whichever_worker_watches_then(
    outage: Outage, worker: int
) -> None:
    """Each worker remembered for itself when a port fell silent, so the next one waited anew."""
    await outage.agent_answers()
    outage.away = True
    assert (await outage.tick()).absent == ONE
    await outage.agent_answers()
    found = await outage.tick(worker)
    assert (found.unreachable, found.absent) == (ONE, frozenset())
