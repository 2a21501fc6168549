"""The host's journal: which orders were taken up, what became of them, and who may still give any.

JSON lines, each synced to disk before the effect it announces. A torn last line is what a
power cut leaves of a line nobody acted on: it is ignored, and cut off by the next writer.
The epoch belongs to the gateway and only grows, over all rollouts; within one epoch the
gateway obeys the one rollout that raised it.
"""

import asyncio
import errno
import fcntl
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from activities.drivers.disk import Reserve
from activities.drivers.runtime.host.bounds import HostBounds
from policies.model.errors import Fenced, Unavailable
from policies.model.operation import BREAK_GLASS, Operation

POLL_SECONDS = 0.01


class Journal:
    """An append-only file under a lock; every reader sees what every writer synced."""

    def __init__(self, path: Path, bounds: HostBounds) -> None:
        self._path = path
        self.bounds = bounds
        self._read: list[dict[str, Any]] = []
        self._offset = 0
        self.reserve = Reserve(path.with_name("reserve"))

    @property
    def epoch(self) -> int:
        """The newest epoch any order or fence has raised on this gateway; 0 before the first."""
        return self._owner(self._lines())[0]

    @property
    def owner(self) -> tuple[int, str]:
        """The newest epoch, and the rollout that raised it or works in it; empty after a mere reset."""
        return self._owner(self._lines())

    def admit(self, operation: Operation) -> dict[str, Any] | None:
        """Write down that the operation begins; return the result of an earlier run of it, if any.

        The result is what was true then. Callers compare it with what is true now.

        Raises:
            Fenced: when a newer epoch, or another rollout of this epoch, owns the gateway.
            ForeignOrder: when it is for another gateway.
            BeyondHostLimits: when its epoch is far ahead of this host's clock.
        """
        self.bounds.check(operation)
        with self._locked() as lines:
            self._refuse_older(lines, operation)
            result = self._result(lines, operation)
            if result is None and not self._begun(lines, operation):
                self._append(operation, "intent")
            return result

    def check(self, operation: Operation) -> None:
        """Raise Fenced when the operation was overtaken since it was admitted, ForeignOrder for another's."""
        self.bounds.check(operation)
        self._refuse_older(self._lines(), operation)

    def finish(self, operation: Operation, result: dict[str, Any]) -> None:
        """Write down what became of the operation, unless the same is written already."""
        with self._locked() as lines:
            if self._result(lines, operation) != result:
                self._append(operation, "result", result=result)

    def fence(self, operation: Operation, *, overrules: bool = True) -> int:
        """Raise the epoch to the operation's and return it; a repeat changes nothing.

        Args:
            operation: The step that owns the gateway from then on.
            overrules: Whether an operator's break-glass of before gives way to it, too.

        Raises:
            Fenced: when the operation itself is older than what owns the gateway, or does not overrule it.
            ForeignOrder: when it is for another gateway.
            BeyondHostLimits: when its epoch is far ahead of this host's clock.
        """
        self.bounds.check(operation)
        with self._locked() as lines:
            self._refuse_older(lines, operation)
            owner = self._owner(lines)
            if not overrules and owner[1] == BREAK_GLASS:
                raise Fenced(
                    f"an operator steered {operation.gateway} by break-glass; step {operation.step} of "
                    f"rollout {operation.rollout}, which no operator ordered, was refused",
                    *owner,
                )
            if owner != (operation.epoch, operation.rollout):
                self._append(operation, "fence")
        return operation.epoch

    def reset(self, reason: str) -> int:
        """Let nobody own the gateway: whatever was ordered before this moment is refused; return its epoch.

        For a person on the host only, who knows that whoever owns the gateway is not to be obeyed.
        """
        epoch = self.bounds.epoch_now
        with self._locked():
            line = {"kind": "reset", "at": datetime.now(UTC).isoformat(), "epoch": epoch, "rollout": ""}
            self._append_line(line | {"key": "", "reason": reason})
        return epoch

    def entries(self) -> list[dict[str, Any]]:
        """Return every whole line, oldest first."""
        return list(self._lines())

    @contextmanager
    def _locked(self) -> Iterator[list[dict[str, Any]]]:
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            lines = self._lines()
            if self._offset < self._path.stat().st_size:
                file.truncate(self._offset)
            yield lines

    def _lines(self) -> list[dict[str, Any]]:
        """Return every whole line; only what was written since the last look is read."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return []
        whole = _whole_part(content)
        self._read += [json.loads(line) for line in content[:whole].splitlines()]
        self._offset += whole
        return self._read

    def _append(self, operation: Operation, kind: str, **more: Any) -> None:
        line = {
            "kind": kind,
            "at": datetime.now(UTC).isoformat(),
            "key": operation.key,
            **operation.model_dump(mode="json"),
            **more,
        }
        self._append_line(line)

    def _append_line(self, line: dict[str, Any]) -> None:
        self.reserve.spend_for(lambda: self._write(json.dumps(line, sort_keys=True).encode() + b"\n"))

    def _write(self, line: bytes) -> None:
        with self._path.open("ab", buffering=0) as file:
            end = os.fstat(file.fileno()).st_size
            try:
                written = file.write(line)
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
            if written < len(line):
                file.truncate(end)
                raise OSError(errno.ENOSPC, "the disk is full", str(self._path))

    @staticmethod
    def _owner(lines: list[dict[str, Any]]) -> tuple[int, str]:
        resets = [number for number, line in enumerate(lines) if line["kind"] == "reset"]
        since = lines[resets[-1] :] if resets else lines
        # Of one epoch all lines but a reset, which belongs to no rollout, are of one rollout.
        return max(((line["epoch"], line["rollout"]) for line in since), default=(0, ""))

    def _refuse_older(self, lines: list[dict[str, Any]], operation: Operation) -> None:
        epoch, rollout = self._owner(lines)
        if operation.epoch < epoch or (operation.epoch == epoch and rollout not in ("", operation.rollout)):
            raise Fenced(
                f"{operation.gateway} obeys rollout {rollout} since epoch {epoch}; step {operation.step} "
                f"of rollout {operation.rollout} (epoch {operation.epoch}) was refused; start again from "
                "what is",
                epoch,
                rollout,
            )

    @staticmethod
    def _result(lines: list[dict[str, Any]], operation: Operation) -> dict[str, Any] | None:
        same = [line["result"] for line in lines if line["kind"] == "result" and line["key"] == operation.key]
        return same[-1] if same else None

    @staticmethod
    def _begun(lines: list[dict[str, Any]], operation: Operation) -> bool:
        return any(line["key"] == operation.key and line["epoch"] == operation.epoch for line in lines)


def _whole_part(content: bytes) -> int:
    """Return how many bytes form whole, readable lines; only the last line can be torn."""
    end = content.rfind(b"\n") + 1
    start = content.rfind(b"\n", 0, max(end - 1, 0)) + 1
    try:
        json.loads(content[start:end] or b"{}")
    except ValueError:
        return start
    return end


@asynccontextmanager
async def exclusive(path: Path, within: timedelta | None = None) -> AsyncIterator[int]:
    """Hold the file's lock: one executor at a time, in this process or any other.

    Yields the descriptor that holds it. A child that inherits it keeps the lock beyond our death,
    until it closes it.

    Raises:
        Unavailable: when somebody else holds it for longer than that; without a bound it is waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            async with asyncio.timeout(within.total_seconds() if within is not None else None):
                await _take_lock(file.fileno())
        except TimeoutError as late:
            raise Unavailable(f"somebody else holds {path}") from late
        yield file.fileno()


async def _take_lock(descriptor: int) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(POLL_SECONDS)
        else:
            return
