"""The way back from a reload, on a disk that takes nothing more and where instances were started since."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit
from typing import Any, cast

import pytest

from activities.drivers.daemon.port import Daemon, Environment, Secret
from activities.drivers.runtime.host.bounds import HostBounds
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.runtime.host.process import boot_id
from activities.drivers.runtime.host.reloads import SlotReloads
from activities.drivers.runtime.host.slot_folders import SlotFolder, SlotFolders
from policies.model.errors import Refused
from policies.model.instance import Probe
from policies.model.settings import Setting, lines_of
from tests.drivers.gateway_lab import gateway, operation
from tests.workflows.world import OLD

DNS = (Setting(key="dns", values=("10.0.0.53",)),)


class FilesDaemon:
    """A daemon of files alone: it lets nobody in with the users `bad`, and fills the disk when told."""

    product = "ocserv"

    def __init__(self) -> None:
        self.disk_fills = False

    def reconfigure(self, at: Environment, _: Path, settings: Sequence[Setting], into: Path) -> None:
        shutil.copytree(at.config / "credentials", into / "credentials")
        (into / "ocserv.conf").write_text("\n".join(lines_of(settings)))

    def renew(self, at: Environment, given: dict[str, Secret], into: Path, **_: Any) -> None:
        (into / "credentials").mkdir()
        (into / "credentials" / "users").write_text(given["users"]())
        shutil.copy(at.config / "ocserv.conf", into)

    def pools(self, at: Environment) -> tuple[IPv4Network | IPv6Network, ...]:
        return at.slot.pools

    async def check(self, _: Environment) -> None:
        pass

    async def reload(self, _: Environment) -> None:
        pass

    async def probe(self, at: Environment) -> Probe:
        if self.disk_fills:
            setrlimit(RLIMIT_FSIZE, (0, getrlimit(RLIMIT_FSIZE)[1]))
        passed = (at.config / "credentials" / "users").read_text() != "bad"
        return Probe(passed=passed, stage="auth", reason="it was tried")


class Folders(SlotFolders):
    """Folders of releases without templates: what an instance is configured with are its settings alone."""

    def template(self, _: SlotFolder) -> Path:
        return Path("no template")


class Host:
    """One gateway's folders, in which this process stands for the instance of slot a."""

    def __init__(self, folder: Path) -> None:
        self.daemon, self.users = FilesDaemon(), "good"
        self.folders = Folders(gateway(), folder, cast(Daemon, self.daemon))
        self.agent_started()
        self.slot = self.folders.of("a")
        (self.slot.path / "conf" / "credentials").mkdir()
        (self.slot.path / "conf" / "credentials" / "users").write_text("good")
        (self.slot.path / "conf" / "ocserv.conf").write_text("")
        self.slot.record_intent(OLD, wanted=True)
        self.started()

    def agent_started(self) -> None:
        journal = Journal(self.folders.root / "journal", HostBounds("gw-1"))
        self.reloads = SlotReloads(self.folders, journal, {"users": lambda: self.users})

    def started(self) -> None:
        """Let the instance have been started just now; another one is told by another comment."""
        stat = Path(f"/proc/{os.getpid()}/stat").read_text()
        (self.slot.path / "launched").write_text(f"{boot_id()}\n{stat}{os.urandom(4).hex()}")

    def has(self) -> tuple[str, str]:
        conf = self.slot.path / "conf"
        return (conf / "ocserv.conf").read_text(), (conf / "credentials" / "users").read_text()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@contextmanager
def limits_as_before() -> Iterator[None]:
    before = getrlimit(RLIMIT_FSIZE)
    try:
        yield
    finally:
        setrlimit(RLIMIT_FSIZE, before)


async def test_a_full_disk_keeps_nobody_from_what_let_people_in_before(host: Host) -> None:
    host.users, host.daemon.disk_fills = "bad", True
    with limits_as_before(), pytest.raises(Refused, match="everything is as it was before"):
        await host.reloads.reload(operation("reload", rollout="edge-2"), older=False)
    assert host.has() == ("", "good")
    assert not list(host.slot.path.glob("conf.*"))


async def test_an_instance_that_was_started_since_gets_the_settings_of_before_as_well(host: Host) -> None:
    await host.reloads.configure(operation("configure", rollout="edge-2"), DNS)
    host.started()
    done = await host.reloads.take_back(operation("back", rollout="edge-3", epoch=2), "edge-2")
    assert (done, host.has(), host.folders.settings) == ((("a",), ("ocserv.conf",)), ("", "good"), ())


async def test_an_instance_that_was_started_since_keeps_the_users_that_it_was_started_with(
    host: Host,
) -> None:
    host.users = "good, and new"
    await host.reloads.reload(operation("reload", rollout="edge-2"), older=False)
    host.started()
    assert await host.reloads.take_back(operation("back", rollout="edge-3", epoch=2), "edge-2") == ((), ())
    assert host.has() == ("", "good, and new")


async def test_settings_are_taken_back_after_a_reload_of_credentials_which_stay(host: Host) -> None:
    """It was reported as done, and nothing was done: what was kept was what was there before the reload."""
    await host.reloads.configure(operation("configure", rollout="edge-2"), DNS)
    host.users = "good, and new"
    await host.reloads.reload(operation("reload", rollout="edge-3"), older=False)
    for _ in range(2):
        done = await host.reloads.take_back(operation("back", rollout="edge-4", epoch=2), "edge-2")
        assert done[0] == ("a",)
        assert (host.has(), host.folders.settings) == (("", "good, and new"), ())


async def test_a_reload_that_comes_after_settings_is_taken_back_without_them(host: Host) -> None:
    await host.reloads.configure(operation("configure", rollout="edge-2"), DNS)
    host.users = "good, and new"
    await host.reloads.reload(operation("reload", rollout="edge-3"), older=False)
    await host.reloads.take_back(operation("back", rollout="edge-4", epoch=2), "edge-3")
    assert (host.has(), host.folders.settings) == (("dns = 10.0.0.53", "good"), DNS)


async def test_what_a_host_undid_by_itself_leaves_the_way_back_of_the_change_before_it(host: Host) -> None:
    await host.reloads.configure(operation("configure", rollout="edge-2"), DNS)
    host.users = "bad"
    with pytest.raises(Refused, match="everything is as it was before"):
        await host.reloads.reload(operation("reload", rollout="edge-3"), older=False)
    assert host.has() == ("dns = 10.0.0.53", "good")
    await host.reloads.take_back(operation("back", rollout="edge-4", epoch=2), "edge-2")
    assert (host.has(), host.folders.settings) == (("", "good"), ())


class Killed(BaseException):
    """The agent's process has ended here."""


def killed_at(patched: pytest.MonkeyPatch, number: int) -> None:
    """End the process before its so-manieth replacement or removal of a file or folder."""
    left = iter(range(number))
    for owner, name in ((Path, "replace"), (shutil, "rmtree")):
        patched.setattr(owner, name, _until(left, getattr(owner, name)))


def _until(left: Iterator[int], call: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(left, None) is None:
            raise Killed
        return call(*args, **kwargs)

    return counted


@pytest.mark.parametrize("users", ["good, and new", "bad"])
async def test_settings_are_taken_back_wherever_the_reload_after_them_was_killed(
    tmp_path: Path, users: str
) -> None:
    """Between two renames the settings before the change had no name, and the rollback did nothing."""
    number, ended = 0, False
    while not ended:
        host = Host(tmp_path / str(number))
        await host.reloads.configure(operation("configure", rollout="edge-2"), DNS)
        host.users = users
        with pytest.MonkeyPatch.context() as patched:
            killed_at(patched, number)
            try:
                await host.reloads.reload(operation("reload", rollout="edge-3"), older=False)
                ended = True
            except Refused:
                ended = True
            except Killed:
                host.agent_started()
        with suppress(Refused):
            await host.reloads.reload(operation("reload", rollout="edge-3"), older=False)
        done = await host.reloads.take_back(operation("back", rollout="edge-4", epoch=2), "edge-2")
        assert (done, host.has()[0]) == ((("a",), ("ocserv.conf",)), ""), f"killed at {number}"
        number += 1
    assert number > 3
