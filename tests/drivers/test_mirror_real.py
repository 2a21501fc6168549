"""Mirrors of real logins on a real ocserv: what they find, and that nothing of users is in them."""

import asyncio
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

import pytest

from activities.drivers.metrics.exporter import GatewayExporter
from activities.drivers.metrics.login_times import recorded_logins
from activities.drivers.programs import run
from deploy.lab.spoiled import ALONE, LIBRARY, PRELOAD, SpoiledForMany, spoil
from orchestrator.processes.exporter import Host, exporter_of
from policies.attempts import PROVEN_SECONDS
from policies.exposure import findings_of
from policies.model.errors import BeyondHostLimits, Fenced
from policies.model.mirror import Mirror
from policies.model.release_tests import Finding, Measurement, Method, Outcome, ReleaseTests
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.patience import until

pytestmark = [*ON_A_REAL_GATEWAY, pytest.mark.skipif(not shutil.which("cc"), reason="needs cc")]

MIRROR = Mirror(seconds=12, at_least=40, at_most=40)
TESTS = ReleaseTests.model_validate(
    # What else this machine does may make either slower: only what is spoiled is that much slower.
    {"mirror": {"within": "12s", "at_least": 40, "at_most": 40, "refused": 0.15, "seconds": 2.5}}
)
"""Eight logins within the burst that users made: the bounds of a busy machine."""
USERS = (1, 2, 3, 4, 5, 6)
SITES = re.compile(r"10\.77\.0\.1\d|fd77::1\d")
NAMES = re.compile(r"user\d")


@pytest.fixture(autouse=True)
def _a_good_release(built_lab: GatewayLab) -> Iterator[None]:  # noqa: F811
    yield
    for path in (LIBRARY, PRELOAD):
        (built_lab.admission.tree / path).unlink(missing_ok=True)


@asynccontextmanager
async def reading(lab: GatewayLab) -> AsyncIterator[GatewayExporter]:  # noqa: F811
    """Have the gateway's exporter read what is logged from now on, as its process does."""
    exporter = exporter_of(lab.gateway, Host(lab.gateway, lab.root), lab.root / "exporter.json")

    async def on() -> None:
        while True:
            exporter.refresh()
            for _ in range(10):
                exporter.follow()
                await asyncio.sleep(0.03)

    work = asyncio.create_task(on())
    try:
        # It sees a process twice before it reads what that logs.
        await until(lambda: any(one.caught_up is not None for one in exporter._watched.values()))
        yield exporter
    finally:
        work.cancel()


async def recorded(lab: GatewayLab, wanted: int) -> None:  # noqa: F811
    await until(lambda: len(recorded_logins(lab.root)) >= wanted, found=lambda: recorded_logins(lab.root))


async def served(lab: GatewayLab) -> str:  # noqa: F811
    """Let a release serve and users log in to it in a burst, one of them over IPv6; return its slot."""
    old = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), old)
    async with reading(lab):
        agent = ("--useragent=AnyConnect Darwin_i386 4.10.1 of user9",)
        users = [lab.client(number, version=6 if number == 3 else 4, more=agent) for number in USERS]
        await asyncio.gather(*(user.up() for user in users))
        await recorded(lab, len(USERS))
    return old


async def mirrored(lab: GatewayLab, how: SpoiledForMany | None = None) -> tuple[str, tuple[Measurement, ...]]:  # noqa: F811
    """Start a new instance beside what serves, and mirror users' logins to it; return its slot, too."""
    if how is not None:
        spoil(lab.admission.tree, how)
    new = await lab.running("2")
    return new, await lab.slots.mirror(operation("mirror"), new, MIRROR)


def found(measured: tuple[Measurement, ...]) -> dict[str, Finding]:
    return {one.test: one for one in findings_of(TESTS, measured, Method.MIRRORED)}


class CommandLines(threading.Thread):
    """Collects what this process and whoever it began start, but for the clients of users, begun before."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self._before = set(_descendants())
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.1):
            for pid in set(_descendants()) - self._before:
                with suppress(OSError):
                    self.seen.add(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def _descendants() -> list[int]:
    """The processes below this one; those in pid namespaces of their own, too."""
    found, parents = [os.getpid()], {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    for above in found:
        found += [pid for pid, parent in parents.items() if parent == above]
    return found[1:]


@pytest.mark.sweep
async def test_a_good_release_is_logged_in_to_as_users_did_and_nothing_of_theirs_is_in_it(
    lab: GatewayLab,  # noqa: F811
) -> None:
    await served(lab)
    new = await lab.running("2")
    with CommandLines() as started:
        measured = await lab.slots.mirror(operation("mirror"), new, MIRROR)
    findings = found(measured)
    assert {one.outcome for one in findings.values()} == {Outcome.PASSED}, findings
    said = findings["mirror-refused"].said
    let_in = re.match(r"(\d) and (\d) of 8 shadow logins let in, new and old \(6 of 6 logins", said)
    assert let_in is not None, said
    assert {*let_in.groups()} <= {"6", "7", "8"}, said  # on a busy machine a login is late at both of them
    # Over IPv4 and IPv6 and by the client that users have, as its daemon heard it.
    log = lab.folders.of(new).log.read_text()
    assert lab.folders.daemon.names_in(log) == {"probe"}
    sources = set(re.findall(r"worker: (\S+) accepted connection", log))
    are_of_version_6 = {":" in source for source in sources}
    assert are_of_version_6 == {True, False} or (False in are_of_version_6 and int(let_in[1]) < 8), said
    assert set(re.findall(r"User-agent: '(.*?)'", log)) == {"AnyConnect Windows 4.10.08029"}
    # What users are called and where they are is in nothing that was written, started or told.
    written = "".join((lab.root / name).read_text() for name in ("logins",))
    told = "".join(one.model_dump_json() for one in measured)
    for text in (log, written, told, *started.seen):
        assert not SITES.search(text)
        assert not NAMES.search(text)
    ports = {str(slot.port) for slot in lab.gateway.slots[:2]}
    assert ports <= {line.rstrip().rpartition(":")[2] for line in started.seen}
    assert await lab.sessions.count(new) == 0
    assert all(user.alive for user in lab.people)


@pytest.mark.sweep
async def test_shadow_logins_are_no_logins_of_users(lab: GatewayLab) -> None:  # noqa: F811
    await served(lab)
    async with reading(lab) as exporter:
        await mirrored(lab)
        await asyncio.sleep(PROVEN_SECONDS + 0.5)
        counted = [
            sample.value
            for family in exporter.collect()
            for sample in family.samples
            if sample.name == "vpngw_first_attempts_total"
        ]
    assert sum(counted) == 0
    assert len(recorded_logins(lab.root)) == len(USERS)


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("how", "test"),
    [(SpoiledForMany.REFUSES_BURSTS, "mirror-refused"), (SpoiledForMany.IS_SLOW_TO_LET_IN, "mirror-seconds")],
    ids=["refuses bursts", "slow"],
)
async def test_a_release_that_passes_its_probe_and_fails_users_as_they_come_is_found(
    lab: GatewayLab,  # noqa: F811
    how: SpoiledForMany,
    test: str,
) -> None:
    await served(lab)
    new, measured = await mirrored(lab, how)
    findings = found(measured)
    assert findings[test].outcome is Outcome.FAILED, findings
    await asyncio.sleep(2 * ALONE)  # the last shadow login may have been refused only now
    assert (await lab.slots.probe(new)).passed
    assert all(user.alive for user in lab.people)


@pytest.mark.sweep
async def test_an_outage_of_both_instances_is_no_fault_of_the_release(lab: GatewayLab) -> None:  # noqa: F811
    await served(lab)
    (lab.folder / "probe").write_text("another\n")
    try:
        _, measured = await mirrored(lab)
    finally:
        (lab.folder / "probe").write_text("secret\n")
    findings = found(measured)
    assert {one.outcome for one in findings.values()} == {Outcome.UNKNOWN}, findings
    assert "0 and 0 of 8 shadow logins let in" in findings["mirror-refused"].said


@pytest.mark.sweep
async def test_a_mirror_that_is_overtaken_ends_and_leaves_nothing(lab: GatewayLab) -> None:  # noqa: F811
    await served(lab)
    new = await lab.running("2")
    long = Mirror(seconds=60, at_least=60, at_most=60)
    playing = asyncio.create_task(lab.slots.mirror(operation("mirror"), new, long))
    await cables(there=True)
    await lab.slots.fence(operation("fence", epoch=2))
    with pytest.raises(Fenced):
        await playing
    assert "probe" not in (await run(["ip", "-brief", "link"])).out


@pytest.mark.sweep
async def test_a_mirror_is_for_what_gets_no_users(lab: GatewayLab) -> None:  # noqa: F811
    old = await served(lab)
    with pytest.raises(BeyondHostLimits, match="gets new sessions, so no logins are mirrored to it"):
        await lab.slots.mirror(operation("mirror"), old, MIRROR)


@pytest.mark.sweep
async def test_without_an_old_instance_a_mirror_proves_nothing(lab: GatewayLab) -> None:  # noqa: F811
    slot = await lab.running("1")
    measured = await lab.slots.mirror(operation("mirror"), slot, MIRROR)
    assert [one.measured for one in measured] == [None, None]
    assert "leave tests.mirror out of this upgrade" in measured[0].said


AGENT = """
import asyncio, sys
from pathlib import Path
from policies.model.mirror import Mirror
from tests.drivers.gateway_lab import GatewayLab, operation
lab = GatewayLab(Path(sys.argv[1]), sys.argv[2])
lab.compose()
asyncio.run(lab.slots.mirror(operation("mirror"), sys.argv[3], Mirror(seconds=60, at_least=60, at_most=60)))
"""
"""An agent of the gateway that mirrors, to be killed."""


async def cables(*, there: bool) -> None:
    async def are() -> bool:
        return ("probe" in (await run(["ip", "-brief", "link"])).out) is there

    await until(are)


@pytest.mark.sweep
async def test_nothing_of_a_mirror_outlives_a_killed_agent_and_it_is_made_again(
    lab: GatewayLab,  # noqa: F811
) -> None:
    await served(lab)
    new = await lab.running("2")
    agent = await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", lab.namespace, sys.executable, "-c", AGENT, str(lab.folder), lab.tag, new)
    )
    await cables(there=True)
    agent.send_signal(signal.SIGKILL)
    await agent.wait()
    await cables(there=False)
    findings = found(await lab.slots.mirror(operation("mirror"), new, MIRROR))
    assert {one.outcome for one in findings.values()} == {Outcome.PASSED}, findings
    assert await lab.sessions.count(new) == 0
