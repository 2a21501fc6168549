"""A HAProxy that ends while the disk is full is started again: a real one on loopback, on a real disk."""

import asyncio
import os
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio

from activities.drivers.steering import redirect
from activities.drivers.steering.haproxy_process import HaproxyProcess
from activities.drivers.steering.haproxy_steering import FOLDER
from tests.drivers.front_lab import why_not_here
from tests.drivers.gateway_lab import operation
from tests.drivers.small_disk import fill, small_disk
from tests.drivers.test_redirect_strangers import Redirected, certified

pytestmark = [
    pytest.mark.skipif(why_not_here() is not None, reason="needs haproxy"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system"),
]


class OnFullDisk(Redirected):
    """A gateway that serves in slot a, whose HAProxy can be ended together with all room on its disk."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder
        self.process = HaproxyProcess(folder / FOLDER, "gw-1")

    async def end(self) -> None:
        """End HAProxy, and then leave no room, nor any that was reserved."""
        await self.steering.remove()
        (self.folder / "reserve").unlink(missing_ok=True)
        fill(self.folder)

    async def shown(self) -> str:
        """Return the certificate that users are shown."""
        return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", self.port))


@pytest.fixture
def disk() -> Iterator[Path]:
    """A small disk, below a folder whose name is short enough for a socket's."""
    with TemporaryDirectory(prefix="psf") as name, small_disk(Path(name, "d")) as disk:
        yield disk


@pytest_asyncio.fixture(loop_scope="function")
async def front(disk: Path) -> AsyncIterator[OnFullDisk]:
    """A gateway that serves in slot a."""
    made = OnFullDisk(disk)
    try:
        await made.steering.make_permanent(operation("keep"), "a")
        yield made
    finally:
        await made.process.end()


@contextmanager
def full_for_good(disk: Path) -> Iterator[None]:
    """Have somebody else take whatever room there is, as soon as there is any."""
    with ThreadPoolExecutor(1) as others:
        over = threading.Event()

        def take() -> None:
            while not over.wait(0.0005):
                fill(disk)

        taking = others.submit(take)
        try:
            yield
        finally:
            over.set()
            taking.result()


async def test_a_haproxy_that_ends_while_the_disk_is_full_is_started_again(front: OnFullDisk) -> None:
    for _ in range(2):
        await front.end()
        with full_for_good(front.folder):
            assert await front.steering.heal()
        found = await front.steering.refresh()
        assert (found.serving, found.trial) == ("a", None)


async def test_a_certificate_that_a_full_disk_does_not_take_holds_up_no_start_and_is_shown_then(
    front: OnFullDisk, tmp_path: Path
) -> None:
    before = await front.shown()
    key, certificate = certified(tmp_path)
    await front.steering.remove()
    (front.folder / "gw.key").write_bytes(key.read_bytes())
    (front.folder / "gw.pem").write_bytes(certificate.read_bytes())
    await front.end()
    assert await front.steering.heal()
    assert await front.shown() == before
    with pytest.raises(OSError, match="No space left"):
        await front.steering.renew()
    assert (await front.shown()).split() == certificate.read_text().split()


async def test_a_steering_that_the_disk_takes_no_configuration_of_is_told_and_tried_again(
    front: OnFullDisk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await front.end()
    monkeypatch.setattr(redirect, "MOST_CONNECTIONS", redirect.MOST_CONNECTIONS - 1)
    found = await front.steering.prime()
    assert (found.serving, found.primed) == ("a", False)
    assert "No space left on device" in caplog.text
    (front.folder / "filler").unlink()
    assert await front.steering.heal()
