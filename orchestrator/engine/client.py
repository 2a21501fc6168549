"""The connection to the Temporal engine, the same for workers, agents and doors."""

import ctypes
import os
from pathlib import Path

from temporalio.client import Client
from temporalio.service import RPCError

from activities.refusals import Hears, only_logged
from orchestrator.engine.reaching import Reaching
from orchestrator.engine.sealing import data_converter
from orchestrator.engine.secured import PLAIN, Secured
from orchestrator.engine.task_timeout import TaskTimeout
from policies.model.errors import BadInput, Unavailable

CLONE_NEWNET = 0x40000000


def enter_network_namespace(name: str | None) -> None:
    """Join the named network namespace; BadInput when there is none of that name or no right to."""
    if name is None:
        return
    path = Path("/run/netns") / name
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise BadInput(
            f"network namespace {name} is not there ({error.strerror}): is the lab running?"
        ) from error
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise BadInput(f"cannot enter network namespace {name} ({reason}): run this as root")
    finally:
        os.close(descriptor)


async def connect(
    address: str,
    namespace: str,
    identity: str | None = None,
    payload_keys: Path | None = None,
    *,
    queue: str | None = None,
    refused: Hears = only_logged,
    lazily: bool = False,
    shown: Secured = PLAIN,
) -> Client:
    """Return a client of the engine that seals with the keys; Unavailable when the engine does not answer.

    An agent names its queue, since its keys are those of its gateway alone; `refused` hears of every payload
    that is not opened. One that connects lazily says so with its first question, and reaches an engine
    that comes later. What is `shown` secures the connection: TLS, a certificate of one's own, an API key.
    """
    try:
        return await Client.connect(
            address,
            namespace=namespace,
            data_converter=data_converter(payload_keys, queue, refused),
            interceptors=[TaskTimeout(), Reaching()],
            identity=identity,
            lazy=lazily,
            tls=shown.client_tls,
            api_key=shown.api_key,
        )
    except (RPCError, RuntimeError) as error:
        raise Unavailable(
            f"the engine at {address} does not answer: start ./run serve, or set PENSTOCK_TEMPORAL_ADDRESS"
        ) from error
