"""A real worker of the engine's library behind a relay does what it did without one, and nothing else."""

from tests.relay.installation import Installation, working


async def test_an_agent_works_through_the_relay_with_heartbeats_and_cancellation(
    installation: Installation,
) -> None:
    agent = await installation.agent("gw-1")
    async with working(agent, "gw-1"):
        assert await installation.errand("gw-1") == ["said hello", "told to stop"]
    assert installation.relay.told.refused == {}
