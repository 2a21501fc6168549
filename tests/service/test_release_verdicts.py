"""What verifying releases costs the records that are kept for ever."""

import pytest

from orchestrator.refusals import HOUR_SECONDS
from orchestrator.service.releases import MOST_RELEASES, HourOfVerdicts
from policies.model.errors import PenstockError, TooMany
from policies.model.people import Caller, Role, Via
from tests.service.test_approvals import House, Releases, house, place, releases

__all__ = ["house", "place", "releases"]


def machine(name: str) -> Caller:
    return Caller(person=name, grants={"edge": frozenset({Role.CI})}, via=Via.API, machine=True)


def recorded(house: House) -> tuple[int, int]:
    """Return the entries of the audit record and the lines of the verdicts' own file."""
    lines = (house.settings.store / "audit.jsonl").read_bytes().splitlines()
    return len(house.audited("release fetched")), len(lines)


async def test_the_same_verdict_for_the_same_caller_is_recorded_once_an_hour(
    house: House, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token of the role ci filled the disk: a minute of looks at one release left megabytes."""
    service, digest = house.installation.service, releases[0].digest
    entries, lines = recorded(house)
    for _ in range(3):
        found = await service.verify_release(machine("deploy-bot"), "edge", digest)
        assert found.reference.digest == digest
    assert recorded(house) == (entries + 1, lines + 1)
    await service.verify_release(machine("other-bot"), "edge", digest)
    assert recorded(house) == (entries + 2, lines + 2)
    hour = service._releases.verdicts
    monkeypatch.setattr(hour, "_ends", hour._ends - HOUR_SECONDS)
    await service.verify_release(machine("deploy-bot"), "edge", digest)
    assert recorded(house) == (entries + 3, lines + 3)


async def test_another_verdict_on_the_same_release_is_recorded(house: House, releases: Releases) -> None:
    service, digest = house.installation.service, releases[0].digest
    await service.verify_release(machine("deploy-bot"), "edge", digest)
    entries, lines = recorded(house)
    house.stage.change_policy(lambda policy: policy.update(rules=[]))
    for _ in range(2):
        with pytest.raises(PenstockError):
            await service.verify_release(machine("deploy-bot"), "edge", digest)
    assert recorded(house) == (entries + 1, lines + 1)


@pytest.mark.sweep
async def test_a_caller_has_a_bounded_number_of_releases_verified_in_an_hour(
    house: House, releases: Releases
) -> None:
    """A digest costs nothing: each that the repository does not have was an entry, too."""
    service, bot = house.installation.service, machine("deploy-bot")
    before = recorded(house)
    for number in range(MOST_RELEASES):
        with pytest.raises(PenstockError, match="is not there"):
            await service.verify_release(bot, "edge", f"sha256:{number:064x}")
    full = recorded(house)
    assert full[1] - before[1] <= MOST_RELEASES
    with pytest.raises(TooMany, match="deploy-bot had 60 releases verified in this hour") as refused:
        await service.verify_release(bot, "edge", releases[0].digest)
    assert 0 < refused.value.after <= HOUR_SECONDS
    assert recorded(house) == full
    await service.verify_release(machine("other-bot"), "edge", releases[0].digest)


def test_an_hour_ends_with_all_that_it_counted() -> None:
    now = [0.0]
    hour = HourOfVerdicts(lambda: now[0])
    for number in range(MOST_RELEASES):
        hour.of("deploy-bot", "edge", f"{number}").add(("", "", "Admitted"))
    assert hour.of("deploy-bot", "edge", "0") == {("", "", "Admitted")}
    with pytest.raises(TooMany):
        hour.of("deploy-bot", "edge", "another")
    now[0] = HOUR_SECONDS
    assert hour.of("deploy-bot", "edge", "another") == set()
    assert hour.of("deploy-bot", "edge", "0") == set()
