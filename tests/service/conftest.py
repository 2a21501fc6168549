"""An installation of two fleets whose engine, metrics and repository are away."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from orchestrator.api.limits import Kind
from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.composition import compose
from orchestrator.service.engine_health import EngineHealth
from orchestrator.service.service import Service
from orchestrator.settings import Settings
from orchestrator.store.ledger import Ledger
from tests.fakes.ledgers import new_ledger
from tests.service.command_line import CommandLine
from tests.workflows.conftest import engines, server  # noqa: F401 - fixtures

FLEETS = """\
name: {name}
product: ocserv
channel: stable
gateways:
  - name: {name}-1
    addresses: [192.0.2.1]
    slots:
      - {{name: a, port: 4441, device: oca, pool4: 10.0.0.0/24}}
      - {{name: b, port: 4442, device: ocb, pool4: 10.0.1.0/24}}
"""


@pytest.fixture
def no_refill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody ask again within the test who has asked too often, however long a busy machine takes."""
    monkeypatch.setattr(Kind, "per_second", 1 / 3600)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(new_ledger(tmp_path / "ledger.db"))


NOBODY = "127.0.0.1:1"
PAGE = "http://penstock"
"""Where people reach the page."""


def installed(folder: Path, temporal_address: str = NOBODY, temporal_namespace: str = "default") -> Settings:
    """Lay out the two fleets and a trust policy in a folder; return settings that touch nothing else."""
    fleets = folder / "fleets"
    fleets.mkdir()
    for name in ("edge", "core"):
        (fleets / f"{name}.yaml").write_text(FLEETS.format(name=name))
    (folder / "trust.yaml").write_text("# nobody is trusted\n")
    return Settings(
        temporal_address=temporal_address,
        temporal_namespace=temporal_namespace,
        page_url=PAGE,
        prometheus_url=f"http://{NOBODY}",
        source=f"http://{NOBODY}",
        ledger_url=f"sqlite:///{folder / 'ledger.db'}",
        fleet=fleets,
        people=folder / "people.yaml",
        gates=Path("deploy/prometheus/gates.yaml"),
        trust=folder / "trust.yaml",
        store=folder / "store",
        snapshots=folder / "snapshots",
        windows=folder / "windows",
        reports=folder / "reports",
        audit_key=folder / "audit.key",
        audit_checkpoints=folder / "checkpoints.jsonl",
        audit_late=folder / "audit-late.jsonl",
    )


@pytest.fixture
async def service(tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Whose engine is away, which a status does not show: most tests read about something else."""
    del ledger

    async def none(_: EngineHealth) -> None:
        return None

    monkeypatch.setattr(EngineHealth, "concern", none)
    return (await compose(installed(tmp_path))).service


@pytest.fixture
async def api(service: Service, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client at the socket: the kernel says that it is root."""
    path = tmp_path / "penstock.sock"
    transport = httpx.AsyncHTTPTransport(uds=os.fspath(path), verify=False)
    async with (
        serving(service, socket_at(path)),
        httpx.AsyncClient(transport=transport, base_url="http://penstock/v1", timeout=30) as client,
    ):
        yield client


@pytest.fixture
async def page(api: httpx.AsyncClient, service: Service, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the page at which root has logged in by a link."""
    del api  # it answers for as long as the fixture stands
    root = service.people.at_the_socket(0)
    link = await service.page_logins.make_link(root, 0)
    transport = httpx.AsyncHTTPTransport(uds=os.fspath(tmp_path / "penstock.sock"), verify=False)
    async with httpx.AsyncClient(transport=transport, base_url=PAGE, timeout=30) as client:
        answer = await client.post(link.url, headers={"Origin": PAGE})
        assert answer.status_code == httpx.codes.SEE_OTHER, answer.text
        yield client


@pytest.fixture
def penstock(api: httpx.AsyncClient, tmp_path: Path) -> CommandLine:
    del api  # it answers for as long as the fixture stands
    socket = {"PENSTOCK_SOCKET": os.fspath(tmp_path / "penstock.sock")}
    return CommandLine(
        {"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(Path.cwd()), "TZ": "UTC"} | socket
    )
