"""`./run lab`: a lab that stays up in the background, to be tried, broken and mended by hand.

`up` starts a keeper that builds the lab and waits; the other verbs tell the keeper what to do, at a socket
that only its owner can open. Its state is a folder of its own: no real installation's files are touched.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from deploy.lab.faults import cut_off, flush_nftables, nft_refuses, no_room
from deploy.lab.lab import DEMO, FLEET, Lab, lab
from deploy.lab.topology import Topology
from orchestrator.exit_code import ExitCode
from orchestrator.processes.process import leave
from orchestrator.settings import state_folder
from policies.model.errors import BadInput, Conflict, PenstockError, Unavailable

UP_WITHIN, DOWN_WITHIN = 240.0, 60.0
ANSWER_WITHIN = 30.0
READY, FAILED = "ready: ", "failed: "
"""How the keeper's report ends."""
KEEPER = "keeper.log"
"""What only the folder of a standing lab has, also when the lab is down."""

OF_A_GATEWAY = ("agent", "cut", "firewall", "steering", "disk")
OF_ALL = ("worker", "engine", "metrics")
KINDS = {
    "agent": "the gateway's agent is killed; its daemons go on",
    "cut": "the gateway is cut off from the orchestrator; its users are not",
    "firewall": "every table of the gateway's kernel is flushed, the steering table too",
    "steering": "every change of the gateway's steering table fails",
    "disk": "the agent's disk is full",
    "worker": "the orchestrator's worker is killed",
    "engine": "the engine is killed",
    "metrics": "Prometheus is killed",
}


def home() -> Path:
    """Return the folder of the lab that is up, else of the one that would be made.

    `PENSTOCK_STATE` may name a real installation, or this lab itself, as people set it to type `penstock`
    without `./run lab`: the lab beside this environment is found all the same.
    """
    said = state_folder().absolute()
    own = said if (said / KEEPER).exists() else said / DEMO.folder
    places = (own, said / DEMO.folder, Path(sys.prefix).parent / ".state" / DEMO.folder)
    return next((place for place in places if keeper_of(place) is not None), own)


def forget_other_installations(folder: Path) -> None:
    """Have everything from here on read this lab's settings, whatever the caller's environment names."""
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        del os.environ[name]
    os.environ["PENSTOCK_STATE"] = str(folder.parent)


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
        held: AbstractContextManager[object] | None = None
        match kind:
            case "agent":
                self._lab.agents[gateway].kill()
            case "cut":
                held = cut_off(self._lab, self._host(gateway))
            case "firewall":
                flush_nftables(self._host(gateway))
            case "steering":
                held = nft_refuses(self._lab, gateway)
            case "disk":
                held = no_room(self._lab.agents[gateway])
            case "worker":
                self._lab.worker.kill()
            case "engine":
                self._lab.engine.kill()
            case _:
                self._lab.prometheus.kill()
        if held is not None:
            held.__enter__()
        return held

    def _require(self, kind: str, gateway: str) -> None:
        known = ", ".join(host.name for host in self._lab.topology.gateways)
        if kind not in KINDS:
            raise BadInput(f"nothing here is called {kind}; there is {', '.join(KINDS)}")
        if kind in OF_A_GATEWAY and gateway not in self._lab.agents:
            raise BadInput(f"say of which gateway: {known}")
        if kind in OF_ALL and gateway:
            raise BadInput(f"there is one {kind} for all gateways; leave {gateway} out")

    def _host(self, gateway: str) -> Any:
        return next(host for host in self._lab.topology.gateways if host.name == gateway)


def _named(kind: str, gateway: str) -> str:
    return f"{kind} of {gateway}" if gateway else kind


async def keep(folder: Path) -> None:
    """Build the lab, say when it is ready, and do what is asked until told to end."""
    report = (folder / "up.log").open("w", buffering=1)
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)

    def tell(sentence: str) -> None:
        report.write(sentence + "\n")

    try:
        async with lab(tell) as kept:
            keeper = Keeper(kept)
            await kept.states()  # so that the first status has seen every gateway
            server = await asyncio.start_unix_server(_listener(keeper), folder / "control.sock")
            (folder / "control.sock").chmod(0o600)
            try:
                tell(f"{READY}{kept.newer.version}")
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


# --- what people type ----------------------------------------------------------------------


def up(folder: Path) -> int:
    """Start a keeper, show what it does, and say what to try."""
    if (pid := keeper_of(folder)) is not None:
        raise Conflict(f"the lab is up already (process {pid}); ./run lab down removes it")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "up.log").unlink(missing_ok=True)
    began = time.monotonic()
    with (folder / KEEPER).open("wb") as log:
        command = [sys.executable, "-m", "deploy.lab.standing", "keep"]
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    (folder / "keeper.pid").write_text(f"{child.pid}\n")
    try:
        newer = _follow(folder, child, began)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the lab is being removed\n")
        down(folder)
        return ExitCode.DETACHED
    sys.stdout.write(_greeting(folder, newer, time.monotonic() - began))
    return ExitCode.DONE


def _follow(folder: Path, child: "subprocess.Popen[bytes]", began: float) -> str:
    """Show the keeper's sentences until it is ready; return the version to upgrade to.

    Raises:
        Unavailable: It has ended, or is not ready in time.
    """
    shown = 0
    while True:
        lines = (folder / "up.log").read_text().splitlines() if (folder / "up.log").exists() else []
        for line in lines[shown:]:
            if line.startswith(READY):
                return line.removeprefix(READY)
            if line.startswith(FAILED):
                raise Unavailable(line.removeprefix(FAILED))
            sys.stdout.write(f"{time.monotonic() - began:5.0f} s  {line}\n")
            sys.stdout.flush()
        shown = len(lines)
        if child.poll() is not None:
            last = (folder / KEEPER).read_text(errors="replace").splitlines()[-1:]
            raise Unavailable(f"the lab did not come up: {' '.join(last) or 'it said nothing'}")
        if time.monotonic() - began > UP_WITHIN:
            raise Unavailable(f"the lab was not up within {UP_WITHIN:g} s; see {folder / KEEPER}")
        time.sleep(0.1)


def _greeting(folder: Path, newer: str, seconds: float) -> str:
    run = "./run lab"
    rows = [
        (f"{run} penstock status", "what is happening, in five sentences"),
        (f"{run} penstock release list", "what could be rolled out"),
        (f'{run} penstock upgrade start --to {newer} --reason "try it" --wait', "an upgrade, live"),
        (f'{run} penstock rollback --reason "and back" --wait', "at any moment, any number of times"),
        (f"{run} break agent gw-2", f"and {run} mend agent gw-2; also {', '.join(KINDS)}"),
        (f"{run} counts", "users, sessions and pings, as the users themselves count them"),
    ]
    tries = "\n".join(f"  {command:<66} {what}" for command, what in rows)
    return (
        f"\nThe lab is up after {seconds:.0f} s and stays until ./run lab down.\n"
        f"Address   {folder / 'run' / 'penstock.sock'}\n"
        f"Login     none needed: at that socket the kernel says who you are\n"
        f"Fleet     {FLEET}\n"
        f"Try\n{tries}\n"
    )


def down(folder: Path) -> int:
    """Have the keeper remove the lab; remove what is left of one that was killed."""
    pid = keeper_of(folder)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + DOWN_WITHIN
        while keeper_of(folder) is not None and time.monotonic() < until:
            time.sleep(0.1)
        if keeper_of(folder) is not None:
            os.kill(pid, signal.SIGKILL)
    topology = Topology(gateways=DEMO.gateways, sites=DEMO.sites, prefix=DEMO.prefix)
    left = topology.leftovers()
    if left:
        topology.tear_down()
    for name in ("keeper.pid", "control.sock"):
        (folder / name).unlink(missing_ok=True)
    sys.stdout.write("The lab is removed.\n" if pid is not None or left else "There was no lab.\n")
    return ExitCode.DONE


def keeper_of(folder: Path) -> int | None:
    """Return the keeper's process, None when there is none: a number alone may be somebody else's by now."""
    try:
        pid = int((folder / "keeper.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        ended = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, ValueError, IndexError):
        return None
    return pid if b"deploy.lab.standing" in command and not ended else None


def ask(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Tell the keeper what to do, and return what it says.

    Raises:
        Conflict: There is no lab.
        Unavailable: The keeper does not answer.
    """
    if keeper_of(folder) is None:
        raise Conflict("there is no lab; ./run lab up makes one")
    try:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(ANSWER_WITHIN)
            caller.connect(str(folder / "control.sock"))
            caller.sendall(json.dumps(asked).encode() + b"\n")
            with caller.makefile("rb") as answer:
                found: dict[str, Any] = json.loads(answer.readline())
    except (OSError, ValueError) as error:
        raise Unavailable(f"the lab does not answer: {error}; see {folder / KEEPER}") from error
    if "error" in found:
        kinds: dict[str, type[PenstockError]] = {"BadInput": BadInput, "Conflict": Conflict}
        raise kinds.get(found["code"], Unavailable)(found["error"])
    return found


def _penstock(folder: Path, arguments: Sequence[str]) -> int:
    """Become the command line of the lab's own installation."""
    environment = {**os.environ, "PENSTOCK_STATE": str(folder)}
    program = Path(sys.prefix) / "bin" / "penstock"
    os.execve(program, [str(program), *arguments], environment)  # noqa: S606 - our own program


def main(arguments: Sequence[str]) -> int:
    """Do what the verb says; return the exit code."""
    folder = home()
    forget_other_installations(folder)
    if arguments[:1] == ["penstock"]:
        return _penstock(folder, arguments[1:])
    parser = argparse.ArgumentParser(prog="./run lab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="build the lab, and keep it up in the background")
    verbs.add_parser("down", help="remove it")
    verbs.add_parser("counts", help="users, sessions and pings as JSON")
    verbs.add_parser("penstock", help="the command line of the lab's installation")
    verbs.add_parser("keep")
    for verb in ("break", "mend"):
        one = verbs.add_parser(verb, help=f"{verb} a part of it: {', '.join(KINDS)}")
        one.add_argument("kind", choices=KINDS)
        one.add_argument("gateway", nargs="?", default="")
    chosen = parser.parse_args(arguments)
    match chosen.verb:
        case "up":
            return up(folder)
        case "down":
            return down(folder)
        case "keep":
            asyncio.run(keep(folder))
        case "counts":
            sys.stdout.write(json.dumps(ask(folder, {"verb": "counts"}), indent=2) + "\n")
        case verb:
            found = ask(folder, {"verb": verb, "kind": chosen.kind, "gateway": chosen.gateway})
            sys.stdout.write(found["sentence"] + "\n")
    return ExitCode.DONE


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except PenstockError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        code = error.exit_code
    except KeyboardInterrupt:
        code = ExitCode.DETACHED
    leave(int(code))
