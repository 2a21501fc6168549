"""A host of the lab that is really booted: Debian's systemd in one of the lab's network namespaces."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from deploy.lab import topology
from deploy.lab.processes import Process
from policies.model.errors import Unavailable
from tests.patience import PATIENCE

KEEPER = Path(__file__).with_name("keeper.sh")
OFF_WITHIN = PATIENCE + 90.0
"""Seconds; systemd gives a unit 90 to end."""
_INTO_GROUP = 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"'
_ENVIRONMENT = (
    "HOME=/root",
    "LANG=C.UTF-8",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
)
_CAPABILITIES = "CAP_NET_ADMIN,CAP_NET_RAW,CAP_BPF,CAP_SYS_RESOURCE"


@dataclass(frozen=True)
class Ended:
    """How a command on a host ended."""

    code: int
    out: str
    err: str


class Host:
    """One host, with a disk that reboots and power cuts leave as it is, at a place of the lab's network.

    Nothing of it stays when it is closed, or when the process that has it ends in whatever way:
    see keeper.sh. While it is off, its cable is, too, and its kernel has forgotten its packet
    filter and connections, which the namespace would keep.
    """

    def __init__(
        self, place: topology.Host, network: topology.Topology, image: Path, logs: Path, *, name: str = ""
    ) -> None:
        self.name = name or place.name
        self.place = place
        self._hub = network.hub.namespace
        self._console = logs / f"{place.name}.console"
        self._machine: Process | None = None
        # The place's namespace has the lab's prefix: two labs on this machine have hosts of one name.
        self._keeper = subprocess.Popen(
            ["unshare", "--mount", KEEPER, image, place.namespace],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._keeper.stdout
        self._group = self._keeper.stdout.readline().strip()
        assert self._group, f"{self.name} has no disk: the keeper's words are above"
        self.put("/etc/hostname", f"{self.name}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def disk(self) -> Path:
        """Its root folder as seen from here, on or off; what it mounts above (/run, /tmp) is not in there."""
        return Path(f"/proc/{self._keeper.pid}/root/mnt/disk")

    @property
    def is_on(self) -> bool:
        """Say whether it has power."""
        return self._machine is not None and self._machine.pid is not None

    def put(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Ensure that its disk has this file, root's, with the folders above it."""
        file = self.disk / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)

    def power_on(self) -> None:
        """Give it power and return at once; `wait_until_booted` waits."""
        assert not self.is_on, f"{self.name} is on"
        self._plug("up")
        self._machine = Process(
            self.name,
            [
                *("nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", "--"),
                *("sh", "-c", _INTO_GROUP, "sh", self._group),
                *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"),
                *("--console=read-only", "--resolv-conf=off", "--timezone=off", "--link-journal=no"),
                "--bind=/dev/net/tun",
                "--directory=/mnt/disk",
                f"--machine={self.name}",
                f"--network-namespace-path=/run/netns/{self.place.namespace}",
                f"--capability={_CAPABILITIES}",
            ],
            log=self._console,
        )
        self._machine.start()

    def wait_until_booted(self) -> None:
        """Wait until systemd has started everything, and every unit is well.

        Raises:
            Unavailable: it has not, in a minute; the sentence names the failed units.
        """
        self._wait(lambda: self._says() not in {"", "offline", "initializing", "starting"}, PATIENCE)
        if (state := self._says()) != "running":
            failed = self.run("systemctl", "--failed", "--plain", "--no-legend").out.split("\n")
            raise Unavailable(f"{self.name} is {state}: {'; '.join(filter(None, failed))}")

    def boot(self) -> None:
        """Give it power and wait until it is up."""
        self.power_on()
        self.wait_until_booted()

    def reboot(self) -> None:
        """Let it shut down in order and boot again, as `systemctl reboot` does."""
        self.power_off()
        self.boot()

    def power_off(self) -> None:
        """Let it shut down in order, as `systemctl poweroff` does, and wait until it is off.

        Raises:
            Unavailable: a unit does not let it.
        """
        self.run("systemctl", "--no-block", "poweroff")
        assert self._machine
        self._machine.wait(OFF_WITHIN)
        self._lose_power()

    def cut_power(self) -> None:
        """Take its power away: nothing on it has time for anything."""
        self._lose_power()

    def run(
        self, *command: str | Path, stdin: str = "", within: float = 60.0, may_fail: bool = False
    ) -> Ended:
        """Run a command as root in there and return how it ended.

        Raises:
            AssertionError: it failed and may not; with all that it said.
            subprocess.TimeoutExpired: it still ran after that many seconds.
        """
        done = subprocess.run(
            ["nsenter", "--target", str(self._leader()), "--all", "--", "env", "-i", *_ENVIRONMENT, *command],
            input=stdin,
            text=True,
            errors="replace",
            capture_output=True,
            timeout=within,
            check=False,
        )
        ended = Ended(done.returncode, done.stdout, done.stderr)
        said = f"{self.name}: {' '.join(map(str, command))} ended with {ended.code}\n{ended.out}\n{ended.err}"
        assert may_fail or not ended.code, said
        return ended

    def beside(self, *command: str, within: float = 60.0) -> str:
        """Run a program of this machine in the host's network, processes and control groups; what it printed.

        Raises:
            AssertionError: it failed; with all that it said.
            subprocess.TimeoutExpired: it still ran after that many seconds.
        """
        there = ["nsenter", "--target", str(self._leader()), "--net", "--pid", "--cgroup", "--", *command]
        done = subprocess.run(there, text=True, capture_output=True, timeout=within, check=False)
        assert not done.returncode, f"{self.name}: {' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def wait_for(self, unit: str, within: float = PATIENCE) -> int:
        """Wait until a unit is active, and return the pid of its main process, 0 if it has none.

        Raises:
            Unavailable: it is not, in that many seconds; the sentence has the end of its journal.
        """

        def shown() -> dict[str, str]:
            told = self.run("systemctl", "show", "--property=ActiveState,MainPID", unit).out
            return dict(line.split("=", 1) for line in told.splitlines())

        try:
            self._wait(lambda: shown()["ActiveState"] == "active", within)
        except Unavailable as late:
            journal = self.run("journalctl", "--no-pager", "--lines=5", "--output=cat", f"--unit={unit}").out
            raise Unavailable(f"{unit} is not active: {late}; its journal: {journal.strip()}") from None
        return int(shown()["MainPID"])

    def boot_id(self) -> str:
        """Return what the kernel calls this boot of it; another one after every reboot."""
        return self.run("cat", "/proc/sys/kernel/random/boot_id").out.strip()

    def close(self) -> None:
        """End it, and take away all that was made of it."""
        if self._machine:
            self._machine.kill()
        assert self._keeper.stdin
        assert self._keeper.stdout
        self._keeper.stdin.close()
        self._keeper.wait(PATIENCE)
        self._keeper.stdout.close()

    def _lose_power(self) -> None:
        assert self._machine
        self._plug("down")
        group = Path(f"/proc/{self._keeper.pid}/root{self._group}")
        (group / "cgroup.kill").write_text("1")
        self._machine.kill()
        self._wait(lambda: "populated 0" in (group / "cgroup.events").read_text(), OFF_WITHIN)
        for forgets in (("nft", "flush", "ruleset"), ("conntrack", "--flush")):
            subprocess.run(
                ["nsenter", f"--net=/run/netns/{self.place.namespace}", "--", *forgets],
                check=True,
                capture_output=True,
            )

    def _plug(self, direction: str) -> None:
        """The hub's end of the cable: the host's own end keeps its addresses."""
        subprocess.run(["ip", "-netns", self._hub, "link", "set", self.place.name, direction], check=True)

    def _leader(self) -> int:
        """Return the pid, seen from here, of the systemd in there."""
        pid = self._machine and self._machine.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if pid else []
        if len(children) != 1:
            raise Unavailable(f"{self.name} is not up: {self._last_words()}")
        return int(children[0])

    def _says(self) -> str:
        """Return how systemd in there says it is; nothing while there is none."""
        try:
            leader = self._leader()
        except (Unavailable, OSError):
            return ""
        command = ["nsenter", "--target", str(leader), "--all", "--", "systemctl", "is-system-running"]
        return subprocess.run(command, text=True, capture_output=True, check=False).stdout.strip()

    def _wait(self, happened: Callable[[], bool], within: float) -> None:
        was_on, deadline = self.is_on, time.monotonic() + within
        while not happened():
            if time.monotonic() > deadline or self.is_on != was_on:
                raise Unavailable(f"{self.name} is not there after {within:g} s: {self._last_words()}")
            time.sleep(0.1)

    def _last_words(self) -> str:
        return " / ".join(self._machine.last_lines(3)) if self._machine else "it was never given power"
