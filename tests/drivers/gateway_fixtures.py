"""Fixtures of tests on a real gateway: one lab for a module, emptied before each test."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio

from activities.drivers.steering import hook, orders
from deploy.lab.namespaces import inside
from tests.drivers.front_lab import BalancerLab, HookLab, RedirectLab
from tests.drivers.gateway_lab import GatewayLab, why_not_here
from tests.drivers.node_lab import NodeLab
from tests.drivers.openvpn_lab import OpenVpnLab
from tests.drivers.podman_lab import PodmanLab
from tests.drivers.podman_lab import why_not_here as why_no_containers
from tests.drivers.strongswan_lab import StrongSwanLab, TwoPlanesLab
from tests.patience import PATIENCE

MISSING = why_not_here()
NO_CONTAINERS = MISSING or why_no_containers()
ON_A_REAL_GATEWAY = [
    pytest.mark.lab,
    pytest.mark.skipif(MISSING is not None, reason=MISSING or ""),
    # A loop of its own, so that its threads do not outlive their time in the gateway's namespace.
    pytest.mark.asyncio(loop_scope="function"),
]


@pytest.fixture
def orders_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have orders wait until a daemon of a busy host has said who is logged in, and not the 300 ms of users.

    It is for tests that expect an order itself to lead people home, where no daemon is late on purpose.
    """
    monkeypatch.setattr(orders, "AT_ONCE", timedelta(seconds=PATIENCE))


@pytest.fixture(scope="module")
def built_lab(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[GatewayLab]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    lab = GatewayLab(folder, request.module.__name__.rsplit("_", 1)[-1][:4])
    lab.build()
    yield lab
    lab.clear()


@pytest_asyncio.fixture(loop_scope="function")
async def lab(built_lab: GatewayLab) -> AsyncIterator[GatewayLab]:
    """The lab, with this process inside the gateway's namespace for the length of a test."""
    async with as_new(built_lab):
        yield built_lab


@pytest.fixture(scope="module")
def built_openvpn(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[OpenVpnLab]:
    folder: Path = tmp_path_factory.mktemp("openvpn")
    lab = OpenVpnLab(folder, f"o{request.module.__name__.rsplit('_', 1)[-1][:4]}")
    lab.build()
    yield lab
    lab.clear()


@pytest_asyncio.fixture(loop_scope="function")
async def openvpn(built_openvpn: OpenVpnLab) -> AsyncIterator[OpenVpnLab]:
    """The lab with OpenVPN on its gateway, with this process inside the gateway's namespace."""
    async with as_new(built_openvpn):
        yield built_openvpn


@pytest.fixture(scope="module")
def built_strongswan(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[StrongSwanLab]:
    folder: Path = tmp_path_factory.mktemp("strongswan")
    lab = StrongSwanLab(folder, f"s{request.module.__name__.rsplit('_', 1)[-1][:4]}")
    lab.build()
    yield lab
    lab.clear()


@pytest_asyncio.fixture(loop_scope="function")
async def strongswan(built_strongswan: StrongSwanLab) -> AsyncIterator[StrongSwanLab]:
    """The lab with strongSwan on its gateway, with this process inside the gateway's namespace."""
    async with as_new(built_strongswan):
        yield built_strongswan


@pytest.fixture(scope="module")
def built_planes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoPlanesLab]:
    lab = TwoPlanesLab(tmp_path_factory.mktemp("planes"), "2p")
    lab.build()
    yield lab
    lab.clear()


@pytest_asyncio.fixture(loop_scope="function")
async def planes(built_planes: TwoPlanesLab) -> AsyncIterator[TwoPlanesLab]:
    """strongSwan between two networks, with this process inside the outer one."""
    async with as_new(built_planes):
        yield built_planes


@pytest.fixture(scope="module")
def built_redirect(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[RedirectLab]:
    folder: Path = tmp_path_factory.mktemp("redirect")
    lab = RedirectLab(folder, f"r{request.module.__name__.rsplit('_', 1)[-1][:4]}")
    lab.build()
    yield lab
    lab.clear()


@pytest_asyncio.fixture(loop_scope="function")
async def redirect(built_redirect: RedirectLab) -> AsyncIterator[RedirectLab]:
    """The lab whose users are redirected, with this process inside the gateway's namespace."""
    async with as_new(built_redirect):
        yield built_redirect


@pytest.fixture(scope="module")
def built_balancer(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[BalancerLab]:
    folder: Path = tmp_path_factory.mktemp("balancer")
    lab = BalancerLab(folder, f"b{request.module.__name__.rsplit('_', 1)[-1][:4]}")
    lab.build()
    yield lab
    lab.clear()


@pytest_asyncio.fixture(loop_scope="function")
async def balancer(built_balancer: BalancerLab) -> AsyncIterator[BalancerLab]:
    """The lab whose users' connections HAProxy carries, with this process inside the gateway's namespace."""
    async with as_new(built_balancer):
        yield built_balancer


@pytest.fixture(scope="module")
def built_hooked(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[HookLab]:
    folder: Path = tmp_path_factory.mktemp("hooked")
    lab = HookLab(folder, f"h{request.module.__name__.rsplit('_', 1)[-1][:4]}")
    lab.build()
    yield lab
    lab.clear()


@pytest_asyncio.fixture(loop_scope="function")
async def hooked(built_hooked: HookLab, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HookLab]:
    """The lab that the example of a hook steers, with this process inside the gateway's namespace.

    Its hook has the time that a busy machine takes: the bound of a call has tests of its own.
    """
    monkeypatch.setattr(hook, "WITHIN", timedelta(seconds=PATIENCE))
    async with as_new(built_hooked):
        yield built_hooked


@pytest.fixture(scope="module")
def built_podman(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[PodmanLab]:
    folder: Path = tmp_path_factory.mktemp("podman")
    lab = PodmanLab(folder, f"p{request.module.__name__.rsplit('_', 1)[-1][:4]}")
    lab.build()
    yield lab
    lab.clear()


@pytest_asyncio.fixture(loop_scope="function")
async def podman(built_podman: PodmanLab) -> AsyncIterator[PodmanLab]:
    """The lab with podman on its gateway, with this process inside the gateway's namespace."""
    async with as_new(built_podman):
        yield built_podman


@pytest.fixture(scope="module")
def built_node(request: pytest.FixtureRequest) -> Iterator[NodeLab]:
    tag = f"n{request.module.__name__.rsplit('_', 1)[-1][:4]}"
    # Short, since a pod's socket lies far below it.
    with TemporaryDirectory(prefix="n") as folder:
        lab = NodeLab(Path(folder), tag)
        lab.build()
        yield lab
        lab.clear()


@pytest_asyncio.fixture(loop_scope="function")
async def node(built_node: NodeLab) -> AsyncIterator[NodeLab]:
    """The node, with this process inside its network for the length of a test."""
    async with as_new(built_node):
        yield built_node


@asynccontextmanager
async def as_new(lab: GatewayLab) -> AsyncIterator[None]:
    """Be inside the lab's network, where nothing of an earlier test is left, nor of this one afterwards."""
    lab.reset()
    with inside(lab.namespace):
        await lab.table.prime()
        yield
        await lab.clients_gone()
    lab.reset()
