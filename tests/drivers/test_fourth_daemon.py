"""The contract of gateways, kept by a daemon that follows "Add a daemon" and changes nothing elsewhere."""

import shutil
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from pydantic import ValidationError

from activities.drivers.daemon.products import DAEMONS, TEMPLATES, daemon_of
from orchestrator.publishing.builder import ReleaseLabels
from policies.model import fleet
from policies.model.fleet import CARRIED, Gateway
from tests.drivers import test_slots_contract as contract
from tests.drivers.gateway_fixtures import MISSING, as_new
from tests.drivers.gateway_lab import gateway
from tests.drivers.line_daemon import SOCKET, LineDaemon, LineLab

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(MISSING is not None, reason=MISSING or ""),
    pytest.mark.skipif(not shutil.which("cc"), reason="needs cc"),
    pytest.mark.asyncio(loop_scope="function"),
]
globals().update({name: test for name, test in vars(contract).items() if name.startswith("test_")})
MOST_LINES = 200


class LineStand(contract.RealStand):
    """A gateway that runs the fourth daemon, and its people."""

    async def silence(self, slot: str) -> None:
        (self.lab.folders.of(slot).chroot.run / SOCKET).unlink()


@pytest.fixture(scope="module")
def built_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LineLab]:
    lab = LineLab(tmp_path_factory.mktemp("line"), "line")
    lab.build()
    yield lab
    lab.clear()


@pytest_asyncio.fixture(loop_scope="function", params=[pytest.param("line", marks=pytest.mark.sweep)])
async def stand(built_line: LineLab) -> Any:
    async with as_new(built_line):
        yield LineStand(built_line)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the lines that a product of this repository has in `fleet.py` and `products.py`."""
    monkeypatch.setattr(fleet, "CARRIED", CARRIED | {("line", "host")})
    monkeypatch.setitem(cast("MutableMapping[str, Any]", DAEMONS), "line", LineDaemon)
    monkeypatch.setitem(cast("MutableMapping[str, Any]", TEMPLATES), "line", lambda text, name: None)


async def test_a_fleet_may_run_it_once_it_is_registered(registered: None) -> None:
    one = Gateway.model_validate(gateway().model_dump() | {"daemon": "line"})
    assert daemon_of(one.daemon).product == ReleaseLabels("line", "1", daemon="line").daemon


async def test_a_daemon_that_is_not_registered_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValidationError, match="no daemon is called line; write one of ocserv, openvpn"):
        Gateway.model_validate(gateway().model_dump() | {"daemon": "line"})


async def test_it_has_200_lines_at_most() -> None:
    assert len(Path(__file__).with_name("line_daemon.py").read_text().splitlines()) <= MOST_LINES
