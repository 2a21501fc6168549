"""A ledger that was restored or rebuilt may lack pins: machines start nothing until it is confirmed."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.processes.ledger_files import back_up, bring_back
from orchestrator.service.changes import ChangeService, Turned
from policies.model.change import ChangeEnding, Outcome
from policies.model.command import CommandKind, CommandReceipt
from policies.model.errors import Refused
from policies.model.people import Caller, Role, Via
from policies.model.plan import ReleaseRef, Strategy
from tests.service.test_applied_upgrades import applied, post, serving  # noqa: F401 - fixtures
from tests.service.test_approvals import (  # noqa: F401 - fixtures
    DORA,
    House,
    Releases,
    house,
    place,
    releases,
)
from tests.service.test_recurring_upgrades import RECURRING, recurring, upgrades, withdraw
from tests.service.test_windows import OPEN, begun, declare  # noqa: F401 - a fixture

PINNED = r"edge is pinned against every release: the ledger was .*Runbook: ledger-restore"
Lose = Callable[[], object]


def robot(*roles: Role) -> Caller:
    return Caller(person="robot", grants={"edge": frozenset(roles)}, via=Via.API, machine=True)


def start(at: House, caller: Caller, release: ReleaseRef, key: str) -> Awaitable[str | None]:
    service = at.installation.service
    return service.start(caller, "edge", release.digest, Strategy.CANARY, "patches", key=key)


async def confirm(at: House) -> Any:
    status, found = await at.by(DORA)("POST", "/fleets/edge/unpin", {"reason": "repeated all"}, "confirmed")
    assert status == 200, found
    return found


def restore(at: House, monkeypatch: pytest.MonkeyPatch, file: Path) -> tuple[str, ...]:
    """Bring back what was backed up, as operators do it; return what it prints besides."""
    monkeypatch.setenv("PENSTOCK_LEDGER_URL", at.settings.ledger_url)
    monkeypatch.setenv("PENSTOCK_AUDIT_KEY", str(at.settings.audit_key))
    monkeypatch.setenv("PENSTOCK_AUDIT_CHECKPOINTS", str(at.settings.audit_checkpoints))
    monkeypatch.setenv("PENSTOCK_PEOPLE", str(at.settings.people))
    if not file.exists():
        back_up(file)
        return ()
    for path in at.folder.glob("ledger.db*"):
        path.unlink()
    return bring_back(file).to_repeat


@pytest.fixture(params=["restored", "rebuilt"])
def lose(
    request: pytest.FixtureRequest,
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Lose:
    """Restore the ledger of before the test, or rebuild it from what gateways serve."""
    if request.param == "rebuilt":
        return lambda: rebuild(serving, releases[0])
    restored = partial(restore, serving, monkeypatch, serving.folder / "backup.jsonl")
    restored()
    return restored


def rebuild(at: House, serves: ReleaseRef) -> None:
    fleet = [f"gw-{number}" for number in range(1, 5)]
    at.ledger.rebuild("edge", dict.fromkeys(fleet, serves), 107, "ana", "an older copy was restored")


async def rolled_back(at: House, release: ReleaseRef) -> None:
    _, started = await post(at, applied(release), "first")
    ending = ChangeEnding(change=started["change"], outcome=Outcome.ROLLED_BACK, sentence="logins failed")
    at.ledger.close_change(ending)


async def test_no_machine_and_no_file_starts_a_release_again_that_was_rolled_back_after_the_backup(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backup = serving.folder / "backup.jsonl"
    restore(serving, monkeypatch, backup)
    await rolled_back(serving, releases[1])
    with pytest.raises(Refused, match=r"edge is pinned against 1\.5\.0"):
        await start(serving, robot(Role.CI), releases[1], "before")
    restore(serving, monkeypatch, backup)
    with pytest.raises(Refused, match=PINNED):
        await start(serving, robot(Role.CI), releases[1], "after")
    status, refused = await post(serving, applied(releases[1]), "file")
    assert (status, refused["exit_code"]) == (422, 5), refused
    assert [one["verb"] for one in refused["next"]] == ["unpin"]
    assert len(begun) == 1


async def test_machines_start_again_once_an_operator_has_confirmed_the_ledger(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],  # noqa: F811
    lose: Lose,
) -> None:
    lose()
    service, machine = serving.installation.service, robot(Role.CI)
    for what in (
        start(serving, machine, releases[1], "one"),
        service.install(machine, "edge", releases[1].digest, "joins", "two"),
        service.reload(machine, "edge", "new keys", key="three"),
        service.configure(machine, "edge", "new settings", key="four"),
    ):
        with pytest.raises(Refused, match=PINNED):
            await what
    assert begun == []
    status, found = await serving.by(DORA)("GET", "/fleets/edge", None)
    assert (status, "may lack rollbacks, freezes" in found["unconfirmed"]) == (200, True)
    assert "unpin" in {one["verb"] for one in found["offers"]}
    assert (await confirm(serving))["sentence"].startswith("the ledger of edge is confirmed")
    assert (await serving.by(DORA)("GET", "/fleets/edge", None))[1]["unconfirmed"] is None
    await start(serving, machine, releases[1], "five")
    assert len(begun) == 1


async def test_recurring_upgrades_start_nothing_until_an_operator_has_confirmed_the_ledger(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],  # noqa: F811
    lose: Lose,
) -> None:
    lose()
    declare(serving, OPEN + RECURRING)
    withdraw(serving, releases[2])
    assert "edge is pinned against every release" in (await upgrades(serving).start_due())["edge"]
    assert "edge is pinned against every release" in await recurring(serving)
    assert begun == []
    await confirm(serving)
    assert "1.5.0 is started by itself" in (await upgrades(serving).start_due())["edge"]


async def test_an_operator_starts_an_upgrade_before_the_ledger_is_confirmed_and_machines_still_do_not(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],  # noqa: F811
    lose: Lose,
) -> None:
    lose()
    body = {"fleet": "edge", "to": releases[1].digest, "reason": "urgent"}
    status, found = await serving.by(DORA)("POST", "/changes", body, "urgent")
    assert status == 202, found
    with pytest.raises(Refused, match=PINNED):
        await start(serving, robot(Role.CI), releases[2], "one")
    assert len(begun) == 1


async def test_a_confirmation_that_is_typed_twice_releases_no_pin(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],  # noqa: F811
) -> None:
    await rolled_back(serving, releases[1])
    rebuild(serving, releases[0])
    await confirm(serving)
    status, refused = await serving.by(DORA)("POST", "/fleets/edge/unpin", {"reason": "once more"}, "again")
    assert (status, [one["release"] for one in refused["next"]]) == (422, ["1.5.0"]), refused
    with pytest.raises(Refused, match=r"edge is pinned against 1\.5\.0"):
        await start(serving, robot(Role.CI), releases[1], "one")
    asked = {"reason": "the uplink was at fault", "release": "1.5.0"}
    assert (await serving.by(DORA)("POST", "/fleets/edge/unpin", asked, "named"))[0] == 200
    await start(serving, robot(Role.CI), releases[1], "two")
    assert len(begun) == 2


async def test_hold_and_rollback_are_not_refused_while_the_ledger_is_unconfirmed(
    serving: House,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    lose: Lose,
) -> None:
    lose()
    done = CommandReceipt(id="one", accepted=True, sentence="Done.")

    async def command(*_: object, **__: object) -> CommandReceipt:
        return done

    async def turn_round(*_: object, **__: object) -> Turned:
        return Turned()

    monkeypatch.setattr(ChangeService, "command", command)
    monkeypatch.setattr(ChangeService, "turn_round", turn_round)
    monkeypatch.setattr(ChangeService, "roll_back", command)
    service, machine = serving.installation.service, robot(Role.CI, Role.OPERATOR)
    assert (await service.command(machine, "edge", CommandKind.HOLD, "odd")).accepted
    assert (await service.roll_back(machine, "edge", "users complain")).accepted


async def test_a_restore_prints_that_pins_and_freezes_are_to_be_repeated_before_machines_start(
    serving: House,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backup = serving.folder / "backup.jsonl"
    restore(serving, monkeypatch, backup)
    printed = "\n".join(restore(serving, monkeypatch, backup))
    assert "pins, of releases that were rolled back" in printed
    assert "penstock window freeze add" in printed
    assert printed.endswith("penstock unpin FLEET --reason TEXT")
