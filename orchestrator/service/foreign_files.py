"""Files that callers send: the long ones are read in a process of its own, so that none delays others.

`python -m orchestrator.service.foreign_files` reads a request's body from its standard input and writes what
it says as JSON. To read 16 MiB of mistakes holds the interpreter for seconds at a time, and threads that are
to hold a change would wait for it. The process has bounds of its own, and ends with whoever asked.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from activities.files import checked
from orchestrator.service.background import Pool
from policies.model.desired import Compared, Text, Upgrade
from policies.model.errors import BadInput
from policies.model.fleet import Fleet
from policies.model.value import Digest, Value, digest_of

W = TypeVar("W", bound=Value)

SMALL = 8 * 1024
"""Bytes that are read in this process: in the worst case within some milliseconds."""

MEMORY_BYTES = 3 << 30
CPU_SECONDS = 60
"""Of the process that reads; 10,000 gateways take 0.2 GB and 2 s."""

LOWER = 10
"""How far the process that reads gives way to others of this host."""


ENDED_FIRST = "1000"
"""The kernel's highest `oom_score_adj`."""


class ReadText(Value):
    """What became of one file."""

    path: str
    digest: Digest
    content: str = ""
    """What it says, as JSON; empty where it is not as it must be."""
    wrong: str = ""
    """Why it is not as it must be."""

    def value(self, model: type[W]) -> W:
        """Return what the file says.

        Raises:
            BadInput: It is not as it must be.
        """
        if self.wrong:
            raise BadInput(self.wrong)
        return model.model_validate_json(self.content)


class ReadBody(Value):
    """What a request to compare files says."""

    description: ReadText | None = None
    upgrade: ReadText | None = None
    malformed: dict[str, Any] | None = Field(default=None)
    """The first fault of the request itself."""


class Malformed(BadInput):
    """A request is not as it must be; `fault` says where and why, as pydantic does."""

    def __init__(self, fault: Mapping[str, Any]) -> None:
        super().__init__(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}; mend the request")
        self.fault = fault


def read(body: bytes) -> ReadBody:
    """Return what the request says, and what its files do."""
    try:
        asked = Compared.model_validate_json(body)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_input=False, include_context=False)[0]
        return ReadBody(malformed={"type": first["type"], "loc": first["loc"], "msg": first["msg"]})
    return ReadBody(description=_text(asked.description, Fleet), upgrade=_text(asked.upgrade, Upgrade))


def _text(file: Text | None, model: type[Value]) -> ReadText | None:
    if file is None:
        return None
    digest = digest_of(file.text.encode())
    try:
        return ReadText(path=file.path, digest=digest, content=checked(file.text, file.path, model))
    except BadInput as wrong:
        return ReadText(path=file.path, digest=digest, wrong=str(wrong))


async def read_body(body: bytes, pool: Pool, person: str) -> ReadBody:
    """Return what a request to compare files says, read in the turn of that pool.

    Raises:
        Malformed: The request is not as it must be.
        BadInput: It takes more memory or time to read than any real file.
    """
    reading = _Reading(body)
    found = await pool.run(reading, person, abandon=reading.end)
    if found.malformed is not None:
        raise Malformed(found.malformed)
    return found


async def read_description(file: Text, pool: Pool, person: str) -> ReadText:
    """Return what became of one description of a fleet; raises as `read_body` does."""
    found = (await read_body(_alone(Compared(description=file)), pool, person)).description
    return found or _unread(file)


async def read_upgrade(file: Text, pool: Pool, person: str) -> ReadText:
    """Return what became of one upgrade of a fleet; raises as `read_body` does."""
    found = (await read_body(_alone(Compared(upgrade=file)), pool, person)).upgrade
    return found or _unread(file)


def _alone(file: Compared) -> bytes:
    return file.model_dump_json().encode()


def _unread(file: Text) -> ReadText:
    return ReadText(path=file.path, digest=digest_of(file.text.encode()), wrong=f"{file.path} was not read")


class _Reading:
    """One body, read where its length wants it; the process ends when it is told to."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def __call__(self) -> ReadBody:
        if len(self._body) <= SMALL:
            return read(self._body)
        if self._ended:
            return ReadBody()
        with subprocess.Popen(
            [sys.executable, "-I", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as self._process:
            if self._ended:
                self._process.kill()
            out, _ = self._process.communicate(self._body)
        if self._process.returncode:
            raise BadInput(
                f"the files take more than {CPU_SECONDS} s or {MEMORY_BYTES >> 30} GiB to read; check that "
                "they are the files you mean"
            )
        return ReadBody.model_validate_json(out)

    def end(self) -> None:
        """Kill the process that reads; nobody waits for its answer any more."""
        self._ended = True
        if self._process is not None:
            self._process.kill()


def main() -> None:
    """Read a body from the standard input within the bounds, and write what it says."""
    for what, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_SECONDS)):
        with suppress(ValueError, OSError):  # where the host allows less already
            resource.setrlimit(what, (most, most))
    os.nice(LOWER)
    with suppress(OSError):  # where memory runs out, this process ends and not the API
        Path("/proc/self/oom_score_adj").write_text(ENDED_FIRST)
    sys.stdout.write(read(sys.stdin.buffer.read()).model_dump_json())


if __name__ == "__main__":
    main()
