"""The keeper of a standing lab: builds it, keeps it up, and does to it what it is told at a socket."""

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from deploy.lab.faults import (
    altered_audit,
    checkpoint_zeroed,
    cut_off,
    drops_forwarded,
    flush_nftables,
    forwards_nothing,
    ledger_lost,
    nft_refuses,
    no_accounts,
    no_room_on,
    orchestrator_stopped,
    swallows_large,
)
from deploy.lab.keeper_words import FAILED, KINDS, OF_A_GATEWAY, OF_ALL, READY
from deploy.lab.lab import DEMO, Lab, Shape, lab
from deploy.lab.topology import Host
from deploy.lab.wrong_files import (
    certificate_not_served,
    chat_account_taken,
    index_ended,
    known_good_forgotten,
    signer_revoked,
    strict_host,
)
from policies.model.errors import BadInput, Conflict, PenstockError, Unavailable

OF_HOSTS: dict[str, Callable[[Host], AbstractContextManager[object]]] = {
    "forwarding": forwards_nothing,
    "filter": drops_forwarded,
    "size": swallows_large,
}
"""What keeps packets from passing through a gateway whose tunnels are up."""


OF_GATEWAYS: dict[str, Callable[[Lab, str], AbstractContextManager[object]]] = {
    "steering": nft_refuses,
    "disk": no_room_on,
    "limits": strict_host,
    "known-good": known_good_forgotten,
}
"""What is wrong with one gateway of the lab."""

OF_LABS: dict[str, Callable[[Lab], AbstractContextManager[object]]] = {
    "orchestrator": orchestrator_stopped,
    "ledger": ledger_lost,
    "accounts": no_accounts,
    "audit": altered_audit,
    "checkpoints": checkpoint_zeroed,
    "trust": signer_revoked,
    "index": index_ended,
    "certificate": certificate_not_served,
    "chat": chat_account_taken,
}
"""What is wrong with something that the whole lab has once."""


class Keeper:
    """Keeps a lab up, and does to it what it is told."""

    def __init__(self, kept: Lab) -> None:
        self._lab = kept
        self._broken: dict[tuple[str, str], AbstractContextManager[object] | None] = {}

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what was asked, and return what became of it."""
        match asked["verb"]:
            case "counts":
                return self._lab.figures()
            case "break":
                return self._break(asked["kind"], asked["gateway"])
            case "mend":
                return self._mend(asked["kind"], asked["gateway"])
            case other:
                raise BadInput(f"the lab knows no {other}")

    def mend_everything(self) -> None:
        """Undo what is still broken, before the lab is removed."""
        for kind, gateway in list(self._broken):
            with suppress(PenstockError, subprocess.CalledProcessError):
                self._mend(kind, gateway)

    def _break(self, kind: str, gateway: str) -> dict[str, Any]:
        self._require(kind, gateway)
        if (kind, gateway) in self._broken:
            raise Conflict(f"{_named(kind, gateway)} is broken already; ./run lab mend {kind} {gateway}")
        self._broken[kind, gateway] = self._strike(kind, gateway)
        return {"broken": kind, "gateway": gateway, "sentence": f"{KINDS[kind]}."}

    def _mend(self, kind: str, gateway: str) -> dict[str, Any]:
        self._require(kind, gateway)
        if (kind, gateway) not in self._broken:
            raise Conflict(f"{_named(kind, gateway)} is not broken")
        held = self._broken.pop((kind, gateway))
        if held is not None:
            held.__exit__(None, None, None)
        match kind:
            case "agent":
                self._lab.agents[gateway].start()
            case "worker":
                self._lab.worker.start()
            case "engine":
                self._lab.engine.start()
            case "metrics":
                self._lab.prometheus.start()
            case _:
                pass  # what held it broken has been let go
        return {"mended": kind, "gateway": gateway, "sentence": f"{_named(kind, gateway)} is mended."}

    def _strike(self, kind: str, gateway: str) -> AbstractContextManager[object] | None:
        """Do it; return what undoes it, None where starting a program or the agent itself does."""
        match kind:
            case "agent":
                self._lab.agents[gateway].kill()
            case "worker":
                self._lab.worker.kill()
            case "engine":
                self._lab.engine.kill()
            case "metrics":
                self._lab.prometheus.kill()
            case "firewall":
                flush_nftables(self._host(gateway))
            case _:
                held = self._holding(kind, gateway)
                held.__enter__()
                return held
        return None

    def _holding(self, kind: str, gateway: str) -> AbstractContextManager[object]:
        """Return what breaks it while it is entered."""
        if kind in OF_LABS:
            return OF_LABS[kind](self._lab)
        if kind in OF_GATEWAYS:
            return OF_GATEWAYS[kind](self._lab, gateway)
        host = self._host(gateway)
        return OF_HOSTS[kind](host) if kind in OF_HOSTS else cut_off(self._lab, host)

    def _require(self, kind: str, gateway: str) -> None:
        known = ", ".join(host.name for host in self._lab.topology.gateways)
        if kind not in KINDS:
            raise BadInput(f"nothing here is called {kind}; there is {', '.join(KINDS)}")
        if kind in OF_A_GATEWAY and gateway not in self._lab.agents:
            raise BadInput(f"say of which gateway: {known}")
        if kind in OF_ALL and gateway:
            raise BadInput(f"there is one {kind} for all gateways; leave {gateway} out")

    def _host(self, gateway: str) -> Host:
        return next(host for host in self._lab.topology.gateways if host.name == gateway)


def _named(kind: str, gateway: str) -> str:
    return f"{kind} of {gateway}" if gateway else kind


async def keep(folder: Path, shape: Shape = DEMO) -> None:
    """Build the lab, say when it is ready, and do what is asked until told to end."""
    report = (folder / "up.log").open("w", buffering=1)
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)

    def tell(sentence: str) -> None:
        report.write(sentence + "\n")

    try:
        async with lab(tell, shape) as kept:
            keeper = Keeper(kept)
            await kept.states()  # so that the first status has seen every gateway
            server = await asyncio.start_unix_server(_listener(keeper), folder / "control.sock")
            (folder / "control.sock").chmod(0o600)
            try:
                tell(f"{READY}{kept.newer.version} {await kept.page_link()}")
                await told.wait()
            finally:
                server.close()
                (folder / "control.sock").unlink(missing_ok=True)
                keeper.mend_everything()
    except PenstockError as error:
        tell(f"{FAILED}{error.code}: {error}")


def _listener(keeper: Keeper) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            found = keeper.answer(json.loads(await reader.readline()))
        except PenstockError as error:
            found = {"code": error.code, "error": str(error)}
        except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
            found = {"code": Unavailable.__name__, "error": str(error)}
        writer.write(json.dumps(found).encode() + b"\n")
        writer.close()

    return listen
