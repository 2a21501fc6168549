"""Programs of the lab: each in its namespace, with its own log, none outliving the lab."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from policies.model.errors import Unavailable

READY_WITHIN = 60.0
"""Seconds in which a worker, an API or an agent takes work after its start."""


def freeze(child: "subprocess.Popen[bytes]") -> None:
    """Stop a child of ours without ending it, and return once all of its threads stand still.

    Nothing happens when it is gone. kill(2) returns before that: on a busy machine a frozen server
    still answers the next request.
    """
    child.send_signal(signal.SIGSTOP)
    with suppress(ChildProcessError):  # it has ended, and its end was waited for
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


class Process:
    """One program. It is killed by the kernel when the thread that started it ends (prctl(2)).

    So start programs from the main thread, or from one that lives as long as the lab. Programs
    that it starts itself are not covered: those die with their namespace, when the lab or the
    next one removes it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        namespace: str | int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Take what it is; its namespace is that of a name, or of an open file, or ours."""
        self.name = name
        self.log = log
        self._program, self._namespace = command, namespace
        self._inherited = (namespace,) if isinstance(namespace, int) else ()
        where = f"/proc/self/fd/{namespace}" if self._inherited else f"/run/netns/{namespace}"
        enter = ["nsenter", f"--net={where}", "--"] if namespace is not None else []
        self.command = ["setpriv", "--pdeathsig", "KILL", *enter, *map(str, command)]
        self._environment = {**os.environ, **environment} if environment else None
        self._child: subprocess.Popen[bytes] | None = None
        self._log_starts_at = 0

    def twin(self, name: str, *, under: Sequence[str] = (), **environment: str) -> "Process":
        """Return the same program once more, not yet started: own name and log, more environment.

        What it runs `under` is a command that becomes the program.
        """
        return Process(
            name,
            [*under, *self._program],
            log=self.log.with_name(f"{name}.log"),
            namespace=self._namespace,
            environment={**(self._environment or {}), **environment},
        )

    def start(self, *, stdin: bytes | None = None) -> int:
        """Start it, with these bytes as its whole input, and return its pid.

        Its own session keeps a Ctrl-C at the terminal for the lab, which then stops it in order.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_starts_at = log.tell()
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
                pass_fds=self._inherited,
            )
        if stdin is not None and self._child.stdin:
            self._child.stdin.write(stdin)
            self._child.stdin.close()
        return self._child.pid

    @property
    def pid(self) -> int | None:
        """Return its pid while it runs."""
        return self._child.pid if self._child and self._child.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """Return how it ended: its code, or minus the signal; None while it runs or before it did."""
        return self._child.poll() if self._child else None

    def wait(self, seconds: float) -> int:
        """Wait for its end and return its exit code.

        Raises:
            Unavailable: it is still running after that time.
        """
        if self._child is None:
            raise Unavailable(f"{self.name} was never started")
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{self.name} (pid {self._child.pid}) still runs after {seconds:g} s") from None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it is gone."""
        if self._child:
            self._child.send_signal(number)

    def wait_until_ready(self, seconds: float = READY_WITHIN) -> None:
        """Wait until it has reported, since its last start, that it takes work.

        Raises:
            Unavailable: It ended, or has not reported so after that time.
        """
        deadline = time.monotonic() + seconds
        while not any(line.startswith("ready:") for line in self._lines_since_start()):
            if self.pid is None or time.monotonic() > deadline:
                last = " / ".join(self.last_lines(3)) or "nothing"
                raise Unavailable(f"{self.name} did not become ready; its last lines: {last}")
            time.sleep(0.05)

    def _lines_since_start(self) -> list[str]:
        with self.log.open("rb") as log:
            log.seek(self._log_starts_at)
            return log.read().decode(errors="replace").splitlines()

    def freeze(self) -> None:
        """Stop it without ending it; nothing of it runs after that. Nothing happens when it is gone."""
        if self._child:
            freeze(self._child)

    def thaw(self) -> None:
        """Let it go on."""
        self.send(signal.SIGCONT)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, grace: float = 5.0) -> int | None:
        """Ask it to end, kill it after the grace, and return its exit code; None if it never ran."""
        if self._child is None:
            return None
        self._child.send_signal(number)
        try:
            return self._child.wait(grace)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return self._child.wait(grace)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.stop(signal.SIGKILL)

    def last_lines(self, count: int = 5) -> list[str]:
        """Return the end of its log, for the sentence that says why it failed."""
        if not self.log.is_file():
            return []
        return self.log.read_text(errors="replace").splitlines()[-count:]
