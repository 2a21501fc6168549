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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.lab.keeper_words import FAILED, KINDS, READY
from deploy.lab.places import DEMO_FOLDER
from orchestrator.exit_code import ExitCode
from orchestrator.processes.leaving import leave
from orchestrator.settings import state_folder
from policies.model.errors import BadInput, Conflict, PenstockError, Unavailable

UP_WITHIN, DOWN_WITHIN = 240.0, 60.0
ANSWER_WITHIN = 30.0
KEEPER = "keeper.log"
"""What only the folder of a standing lab has, also when the lab is down."""


def home() -> Path:
    """Return the folder of the lab that is up, else of the one that would be made.

    `PENSTOCK_STATE` may name a real installation, or this lab itself, as people set it to type `penstock`
    without `./run lab`: the lab beside this environment is found all the same.
    """
    said = state_folder().absolute()
    own = said if (said / KEEPER).exists() else said / DEMO_FOLDER
    places = (own, said / DEMO_FOLDER, Path(sys.prefix).parent / ".state" / DEMO_FOLDER)
    return next((place for place in places if keeper_of(place) is not None), own)


def forget_other_installations(folder: Path) -> None:
    """Have everything from here on read this lab's settings, whatever the caller's environment names."""
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        del os.environ[name]
    os.environ["PENSTOCK_STATE"] = str(folder.parent)


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
        newer, page = _follow(folder, child, began)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the lab is being removed\n")
        down(folder)
        return ExitCode.DETACHED
    sys.stdout.write(_greeting(folder, newer, page, time.monotonic() - began))
    return ExitCode.DONE


def _follow(folder: Path, child: "subprocess.Popen[bytes]", began: float) -> tuple[str, str]:
    """Show the keeper's sentences until it is ready; return the version to upgrade to, and a login's link.

    Raises:
        Unavailable: It has ended, or is not ready in time.
    """
    shown = 0
    while True:
        lines = (folder / "up.log").read_text().splitlines() if (folder / "up.log").exists() else []
        for line in lines[shown:]:
            if line.startswith(READY):
                newer, page = line.removeprefix(READY).split(" ")
                return newer, page
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


def _greeting(folder: Path, newer: str, page: str, seconds: float) -> str:
    from deploy.lab.lab import FLEET  # noqa: PLC0415 - who types a command waits for no lab

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
        f"Page      {page}\n"
        f"          logs you in once, within ten minutes; {run} penstock page prints another\n"
        f"Socket    {folder / 'run' / 'penstock.sock'}\n"
        f"Login     none needed: at that socket the kernel says who you are\n"
        f"Fleet     {FLEET}\n"
        f"Try\n{tries}\n"
    )


def down(folder: Path) -> int:
    """Have the keeper remove the lab; remove what is left of one that was killed."""
    from deploy.lab.lab import DEMO  # noqa: PLC0415 - who types a command waits for no lab
    from deploy.lab.topology import Topology  # noqa: PLC0415 - who types a command waits for no lab

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


def _keep(folder: Path, prefix: str | None) -> None:
    """Be the keeper."""
    from deploy.lab.keeper import keep  # noqa: PLC0415 - who types a command waits for no lab
    from deploy.lab.lab import DEMO  # noqa: PLC0415 - who types a command waits for no lab

    asyncio.run(keep(folder, replace(DEMO, prefix=prefix) if prefix else DEMO))


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
    keeping = verbs.add_parser("keep")
    keeping.add_argument("--prefix", help="of the lab's networks, so that it may be beside another lab")
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
            _keep(folder, chosen.prefix)
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
