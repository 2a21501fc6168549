"""What one login costs: openconnect's own process against the lab's client (deploy/lab/anyconnect.py)."""

import asyncio
import json
import resource
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from deploy.lab import credentials, namespaces
from deploy.lab.anyconnect import log_in
from deploy.lab.credentials import Credentials
from deploy.lab.daemons.ocserv import LabOcserv
from deploy.lab.daemons.port import Outcome
from deploy.lab.topology import Claim, Topology
from tests.lab.gateway import plain_gateway

_LOGINS = 40


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Print CPU and wall seconds per login of both clients."""
    topology = Topology(gateways=1, sites=0, prefix="pstb-")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch, Claim(topology.prefix):
        topology.build()
        try:
            given = credentials.issue(topology, Path(scratch, "credentials"), LabOcserv(), people=_LOGINS)
            with plain_gateway(topology.gateways[0], given):
                namespaces.enter(topology.load.namespace)
                address = topology.gateways[0].address4
                figures = {
                    "openconnect": _measure(
                        lambda: _with_openconnect(address, given), resource.RUSAGE_CHILDREN
                    ),
                    "own client": _measure(lambda: _with_own_client(address, given), resource.RUSAGE_SELF),
                }
        finally:
            topology.tear_down()
    for name, figure in figures.items():
        print(f"{name:12} {figure['cpu_ms']:6.1f} ms CPU  {figure['wall_ms']:6.1f} ms wall  per login")
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1))
    return 0


def _measure(work: Callable[[], None], whose: int) -> dict[str, float]:
    before, start = resource.getrusage(whose), time.monotonic()
    work()
    after, end = resource.getrusage(whose), time.monotonic()
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_ms": round(1000 * used / _LOGINS, 2), "wall_ms": round(1000 * (end - start) / _LOGINS, 2)}


def _with_openconnect(address: str, given: Credentials) -> None:
    for user in given.people:
        command = ["openconnect", "--authenticate", f"--cafile={given.authority}", f"--user={user}"]
        command += ["--passwd-on-stdin", "--non-inter", f"https://{address}"]
        done = subprocess.run(
            command, input=f"{given.password}\n", text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr


def _with_own_client(address: str, given: Credentials) -> None:
    trust = ssl.create_default_context(cafile=str(given.authority))

    async def all_of_them() -> None:
        for user in given.people:
            outcome, reason = await log_in(address, 443, user, given.password, trust=trust)
            assert outcome is Outcome.ACCEPTED, reason

    asyncio.run(all_of_them())
