"""The exporter as a process of its own beside a scratch gateway's instances, and what it shows."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.drivers.gateway_lab import GatewayLab
from tests.patience import until

PORT = 9500
HOW = {"ocserv": ("password",), "openvpn": ("certificate", "key"), "strongswan": ("certificate", "key")}
"""By what the probe logs in."""
Shown = dict[tuple[str, str, str], float]
"""Value by name, slot, and outcome or version."""


class Exporter:
    """The process, and what it shows."""

    def __init__(self, lab: GatewayLab, *, tunnels: bool = False, capabilities: str = "") -> None:
        """Start it, with these `capabilities` alone, as systemd limits a unit by CapabilityBoundingSet."""
        self.under = bounded_by(capabilities) if capabilities else []
        self.log = lab.folder / "exporter.log"
        gateway = lab.gateway.model_copy(update={"fleet": "edge", "metrics_port": PORT})
        content = {
            "gateway": gateway.model_dump(mode="json", exclude_none=True),
            "root": str(lab.root),
            "product": gateway.daemon,
            "channel": "stable",
            "trust": str(lab.folder / "trust.yaml"),
            "temporal_address": "127.0.0.1:1",
            "probe": {
                "user": "probe",
                "authority": "/nowhere",
                **dict.fromkeys(HOW[gateway.daemon], "/nowhere"),
            },
            "exporter": {"probe_tunnels": tunnels},
        }
        self.config = lab.folder / "agent.yaml"
        self.config.write_text(json.dumps(content))
        self.url = f"http://127.0.0.1:{PORT}/metrics"
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [*self.under, sys.executable, "-m", "orchestrator", "exporter", str(self.config)]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def shown(self) -> Shown:
        with urlopen(self.url, timeout=5) as answer:
            text = answer.read().decode()
        return {
            (
                s.name,
                s.labels.get("slot", ""),
                s.labels.get("outcome") or s.labels.get("version") or "",
            ): s.value
            for family in text_string_to_metric_families(text)
            for s in family.samples
            if "le" not in s.labels
        }

    async def until(self, wanted: Callable[[Shown], bool]) -> Shown:
        shown: Shown = {}

        async def is_shown() -> bool:
            nonlocal shown
            assert self.process.poll() is None, self.log.read_text()
            try:
                shown = await asyncio.to_thread(self.shown)
            except OSError:
                shown = {}
            return wanted(shown)

        await until(is_shown, found=lambda: f"{shown}\n{self.log.read_text()}")
        return shown

    def resident(self) -> int:
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def bounded_by(capabilities: str) -> list[str]:
    """Return the command line under which root's programs have these capabilities and no others."""
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities.split())
    return ["setpriv", "--bounding-set", f"-all,{kept}", "--inh-caps", "-all", "--no-new-privs"]


@pytest.fixture
def exporters() -> Iterator[list[Exporter]]:
    started: list[Exporter] = []
    yield started
    for exporter in started:
        exporter.kill()


PINGS_ALLOWED = Path("/proc/sys/net/ipv4/ping_group_range")


@pytest.fixture
def pings() -> Iterator[None]:
    """Everybody here may ping, as systemd has it on a host."""
    before = PINGS_ALLOWED.read_text()
    PINGS_ALLOWED.write_text("0 2147483647")
    yield
    PINGS_ALLOWED.write_text(before)
