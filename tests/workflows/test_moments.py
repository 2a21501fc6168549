"""After several events each gateway serves what an oracle of gateways says (`./run bench moments`)."""

import pytest

from tests.moments.play import play
from tests.moments.pure import play_pure
from tests.moments.stage import quicken, staged
from tests.workflows.engine import Engine


def test_after_any_history_the_pure_decisions_lead_to_what_each_gateway_had_before() -> None:
    """Issue 37: R1, R2 and R9 after several events, lost changes and incomplete rollbacks among them."""
    found = play_pure(300, 1)
    assert found.wrong_targets == []
    assert (found.sequences, found.rollbacks > 300) == (300, True)


@pytest.mark.parametrize("seed", [16, pytest.param(14, marks=pytest.mark.sweep)])
async def test_after_a_random_sequence_every_gateway_serves_the_release_that_the_oracle_names(
    server: Engine, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 37: service, workflows, ledger and engine are real; gateways and metrics are simulated."""
    quicken(monkeypatch.setattr, monkeypatch.setitem)
    async with staged(server) as stage:
        found = await play(stage, seed)
    assert found.faults == [], "\n".join(found.events)
