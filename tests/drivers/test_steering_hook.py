"""A program that steers: simulated ones that work, lie, fail or keep no lease."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from activities.drivers.daemon.port import Session
from activities.drivers.runtime.host.bounds import HostBounds
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.steering import hook
from activities.drivers.steering.hook import HookSteering, InForce, document, read_shown
from activities.drivers.steering.orders import SteeringOrders
from activities.drivers.steering.port import Means
from activities.drivers.steering.switch import Switch
from policies.model.errors import BadInput, Conflict, LeaseLapsed, Unavailable
from policies.model.fleet import Gateway
from tests.drivers.gateway_lab import gateway, operation
from tests.patience import until
from workflows import steps

LEASE = timedelta(minutes=5)
SIMULATED = """#!/bin/sh
set -e
cd {folder}
case $1 in
write) {write} ;;
read) [ -f told ] || {{ echo '{{}}'; exit 0; }}; {read} ;;
esac
"""
KEEPS = "cat > told.new; mv told.new told"  # whoever looks meanwhile sees what was before
SAYS = (
    'python3 -c \'import json; told = json.load(open("told")); '
    'print(json.dumps({"weights": told["weights"]}))\''
)


class Hooked:
    """A gateway whose three slots run, and a simulated balancer that keeps no lease."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.program = folder, folder / "steer"
        self.gateway = Gateway.model_validate(gateway().model_dump() | {"steering": "hook"})
        self.simulate()
        self.steering = self.agent()

    def simulate(self, write: str = KEEPS, read: str = SAYS) -> None:
        self.program.write_text(SIMULATED.format(folder=self.folder, write=write, read=read))
        self.program.chmod(0o700)

    def agent(self) -> HookSteering:
        async def live(within: timedelta) -> Mapping[str, tuple[Session, ...] | None]:
            return {"a": (), "b": (), "c": None}

        journal = Journal(self.folder / "journal.jsonl", HostBounds("gw-1"))
        orders = SteeringOrders(self.gateway, journal, live, self.folder / "steering.json")
        return HookSteering(orders, replace(Means(self.folder), hook=self.program))

    @property
    def told(self) -> dict[str, object]:
        content: dict[str, object] = json.loads((self.folder / "told").read_text())
        return content


@pytest.fixture
def hooked(tmp_path: Path) -> Hooked:
    return Hooked(tmp_path)


async def test_a_hook_is_told_what_is_to_be_in_force_and_what_afterwards(hooked: Hooked) -> None:
    assert (await hooked.steering.prime()).serving is None
    await hooked.steering.make_permanent(operation("keep"), "a")
    assert hooked.told["weights"] == hooked.told["afterwards"] == {"a": 100}
    trial = await hooked.steering.start_trial(operation("trial"), "b", LEASE, share=25)
    assert (trial.serving, trial.trial, trial.share, trial.changed) == ("a", "b", 25, True)
    told = hooked.told
    assert told["weights"] == {"a": 75, "b": 25}
    assert told["afterwards"] == {"a": 100}
    assert (told["gateway"], told["port"], told["addresses"]) == ("gw-1", 443, ["10.77.0.1", "fd77::1"])
    assert (told["lease_seconds"], told["generation"]) == (LEASE.total_seconds(), "r-1/1")
    assert told["slots"] == {name: {"port": 4431 + at, "users_at": None} for at, name in enumerate("abc")}
    back = await hooked.steering.end_trial(operation("back"))
    assert (back.serving, back.trial, hooked.told["weights"]) == ("a", None, {"a": 100})


async def test_a_trial_that_the_hook_does_not_end_is_ended_by_its_agent(
    hooked: Hooked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "HEAL_EVERY", timedelta(milliseconds=200))
    await hooked.steering.make_permanent(operation("keep"), "a")
    await hooked.steering.start_trial(operation("trial"), "b", timedelta(seconds=2))
    keeping = asyncio.create_task(hooked.steering.keep())
    await until(lambda: hooked.told["trial"] is None)
    keeping.cancel()
    assert hooked.told["weights"] == {"a": 100}
    with pytest.raises(LeaseLapsed):
        await hooked.steering.start_trial(operation("trial"), "b", LEASE, renew=True)


async def test_a_hook_that_is_to_end_trials_by_itself_has_to_tell_their_lease(hooked: Hooked) -> None:
    hooked.gateway = hooked.gateway.model_copy(update={"hook_can": ("share", "lease")})
    steering = hooked.agent()
    await steering.make_permanent(operation("keep"), "a")
    with pytest.raises(Conflict, match=r"to end trials by itself \(hook_can\), and tells no lease of slot b"):
        await steering.start_trial(operation("trial"), "b", LEASE)


async def test_a_trial_of_an_agent_that_died_is_ended_by_the_next_one(hooked: Hooked) -> None:
    await hooked.steering.make_permanent(operation("keep"), "a")
    await hooked.steering.start_trial(operation("trial"), "b", LEASE)
    after = await hooked.agent().prime()
    assert (after.serving, after.trial, after.changed) == ("a", None, True)


async def test_a_hook_that_takes_a_change_and_does_not_make_it_is_a_conflict(hooked: Hooked) -> None:
    await hooked.steering.make_permanent(operation("keep"), "a")
    hooked.simulate(write="cat > /dev/null")
    with pytest.raises(Conflict, match="took a change on gw-1 and did not make it: wanted b, read back a"):
        await hooked.steering.make_permanent(operation("keep new"), "b")
    assert (hooked.steering.permanent, (await hooked.steering.read()).serving) == ("a", "a")


@pytest.mark.parametrize(
    ("simulated", "why"),
    [
        ({"write": "echo 'the balancer is away' >&2; exit 3"}, "has failed to write: the balancer is away"),
        ({"read": "echo 'no idea'"}, "says nothing that can be read: 'no idea"),
        ({"read": 'echo \'{"weights": {"a": "all"}}\''}, "says nothing that can be read"),
    ],
)
async def test_a_hook_that_fails_is_told_in_its_own_words(
    hooked: Hooked, simulated: dict[str, str], why: str
) -> None:
    await hooked.steering.make_permanent(operation("keep"), "a")
    hooked.simulate(**simulated)
    with pytest.raises(Unavailable, match=why):
        await hooked.steering.make_permanent(operation("keep new"), "b")
    assert hooked.steering.permanent == "a"


async def test_what_somebody_changed_behind_the_hook_is_written_again(hooked: Hooked) -> None:
    await hooked.steering.make_permanent(operation("keep"), "a")
    (hooked.folder / "told").write_text('{"weights": {"b": 100}}')
    assert await hooked.steering.heal()
    assert hooked.told["weights"] == {"a": 100}
    assert not await hooked.steering.heal()


async def test_a_hook_that_others_can_change_is_not_called(hooked: Hooked) -> None:
    await hooked.steering.make_permanent(operation("keep"), "a")
    hooked.program.chmod(0o722)
    with pytest.raises(BadInput):
        await hooked.steering.make_permanent(operation("keep new"), "b")
    assert hooked.told["weights"] == {"a": 100}
    hooked.program.chmod(0o700)
    assert not await hooked.steering.heal()
    assert hooked.told["weights"] == {"a": 100}


@pytest.mark.sweep
async def test_the_exporter_knows_who_gets_new_sessions_without_a_call(hooked: Hooked) -> None:
    with pytest.raises(Unavailable, match="was not asked by its agent yet"):
        await read_shown(hooked.gateway, hooked.folder, {})
    await hooked.steering.make_permanent(operation("keep"), "a")
    await hooked.steering.start_trial(operation("trial"), "b", timedelta(seconds=5))
    hooked.program.rename(hooked.folder / "away")
    shown = await read_shown(hooked.gateway, hooked.folder, {})
    assert (shown.primed, shown.serving, shown.trial) == (True, "a", "b")
    await asyncio.sleep(5.1)
    assert (await read_shown(hooked.gateway, hooked.folder, {})).trial is None


def test_what_the_page_shows_of_a_hook_is_what_it_is_told_and_may_say() -> None:
    page = (Path(__file__).parents[2] / "docs/steering.md").read_text()
    told, said = (
        json.loads(one) for one in re.findall(r"^```json\n(.+?)^```$", page, re.MULTILINE | re.DOTALL)
    )
    described = gateway().model_dump() | {"steering": "hook", "name": told["gateway"]}
    described |= {"addresses": told["addresses"], "port": told["port"]}
    slots = zip(described["slots"], told["slots"].items(), strict=False)
    described["slots"] = [slot | {"name": name, **where} for slot, (name, where) in slots]
    wanted = Switch("a", generation=told["generation"]).on_trial(
        "b", timedelta(seconds=120), share=10, seed=told["seed"]
    )
    assert document(Gateway.model_validate(described), wanted) == told
    assert InForce.model_validate(said).weights == told["weights"]
    assert {*said} == {*InForce.model_fields}


def test_the_gateways_that_the_page_shows_are_such_as_fleets_have() -> None:
    page = (Path(__file__).parents[2] / "docs/steering.md").read_text()
    shown = re.findall(r"^```yaml\n(- name: .+?)^```$", page, re.MULTILINE | re.DOTALL)
    described = [yaml.safe_load(one)[0] for one in shown]
    assert [Gateway.model_validate(one).hook_can for one in described] == [("lease",), ("share", "lease")]


@pytest.mark.parametrize("fails", [{"write": KEEPS + "; exit 3"}, {"read": "echo 'no idea'"}])
async def test_a_trial_is_not_healed_that_was_ended_by_an_order_that_failed(
    hooked: Hooked, fails: dict[str, str]
) -> None:
    await hooked.steering.make_permanent(operation("keep"), "a")
    await hooked.steering.start_trial(operation("trial"), "b", LEASE)
    assert not await hooked.steering.heal()
    hooked.simulate(**fails)
    with pytest.raises(Unavailable):
        await hooked.steering.end_trial(operation("back"))
    hooked.simulate()
    await hooked.steering.heal()
    assert hooked.told["weights"] == {"a": 100}
    assert not await hooked.steering.heal()


async def test_a_slot_that_was_made_permanent_by_an_order_that_failed_is_not_healed_to_a_trial(
    hooked: Hooked,
) -> None:
    await hooked.steering.make_permanent(operation("keep"), "a")
    await hooked.steering.start_trial(operation("trial"), "b", LEASE)
    hooked.simulate(write="cat > told; exit 3")
    with pytest.raises(Unavailable):
        await hooked.steering.make_permanent(operation("keep new"), "b")
    hooked.simulate()
    assert not await hooked.steering.heal()
    assert hooked.told["afterwards"] == {"b": 100}
    (hooked.folder / "told").write_text('{"weights": {"a": 100}}')
    assert await hooked.steering.heal()
    assert hooked.told["weights"] == {"b": 100}


async def test_a_hook_that_cannot_be_read_is_told_to_go_back_and_the_failure_is_told_afterwards(
    hooked: Hooked,
) -> None:
    await hooked.steering.make_permanent(operation("keep"), "a")
    await hooked.steering.start_trial(operation("trial"), "b", LEASE)
    hooked.simulate(read="echo 'the balancer is away' >&2; exit 3")
    with pytest.raises(Unavailable, match="has failed to read: the balancer is away"):
        await hooked.steering.end_trial(operation("back"))
    assert hooked.told["weights"] == {"a": 100}


@pytest.mark.sweep
@pytest.mark.parametrize("hangs", ["exec sleep 60", "sleep 14; true"])
async def test_a_hook_that_hangs_holds_no_order_longer_than_its_step_waits(
    hooked: Hooked, hangs: str
) -> None:
    await hooked.steering.make_permanent(operation("keep"), "a")
    await hooked.steering.start_trial(operation("trial"), "b", LEASE)
    hooked.simulate(read=hangs)
    healing = asyncio.create_task(hooked.steering.heal())
    await asyncio.sleep(0.1)
    shortest = min(step["start_to_close_timeout"] for step in (steps.STEER, steps.CONFIRM, steps.GO_BACK))
    async with asyncio.timeout(shortest.total_seconds()):
        with pytest.raises(Unavailable, match=r"did not end within 1\.5 s"):
            await hooked.steering.end_trial(operation("back"))
    assert hooked.told["weights"] == {"a": 100}
    with pytest.raises(Unavailable):
        await healing


async def test_a_trial_ends_with_its_lease_though_the_hook_cannot_be_read(hooked: Hooked) -> None:
    await hooked.steering.make_permanent(operation("keep"), "a")
    await hooked.steering.start_trial(operation("trial"), "b", timedelta(seconds=2))
    hooked.simulate(read="echo 'no idea'")
    await asyncio.sleep(2)
    with pytest.raises(Unavailable, match="says nothing that can be read"):
        await hooked.steering.heal()
    assert hooked.told["weights"] == {"a": 100}


async def test_a_trial_of_an_agent_that_died_is_ended_by_the_next_one_that_cannot_read_the_hook(
    hooked: Hooked,
) -> None:
    await hooked.steering.make_permanent(operation("keep"), "a")
    await hooked.steering.start_trial(operation("trial"), "b", LEASE)
    hooked.simulate(read="echo 'no idea'")
    await hooked.agent().prime()
    assert hooked.told["weights"] == {"a": 100}


async def test_what_is_read_again_and_is_right_is_not_written_while_the_hook_cannot_be_read(
    hooked: Hooked,
) -> None:
    await hooked.steering.make_permanent(operation("keep"), "a")
    (hooked.folder / "told").unlink()
    hooked.simulate(read="exit 3", write=KEEPS)
    (hooked.folder / "told").write_text("{}")
    with pytest.raises(Unavailable):
        await hooked.steering.heal()
    assert hooked.told == {}


async def test_a_disk_that_takes_no_word_for_the_exporter_keeps_nobody_from_going_back(
    hooked: Hooked, caplog: pytest.LogCaptureFixture
) -> None:
    await hooked.steering.make_permanent(operation("keep"), "a")
    await hooked.steering.start_trial(operation("trial"), "b", LEASE)
    (hooked.folder / ".hook.json.new").mkdir()  # where a word is written first
    back = await hooked.steering.end_trial(operation("back"))
    assert (back.trial, hooked.told["weights"]) == (None, {"a": 100})
    assert "the exporter does not hear what steers gw-1" in caplog.text
    written = Journal(hooked.folder / "journal.jsonl", HostBounds("gw-1")).entries()[-1]
    assert (written["step"], written["result"]) == ("back", {"serving": "a", "trial": None})
    (hooked.folder / ".hook.json.new").rmdir()
    await hooked.steering.heal()
    assert (await read_shown(hooked.gateway, hooked.folder, {})).trial is None
