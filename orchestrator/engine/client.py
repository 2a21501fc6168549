"""The connection to the Temporal engine, the same for workers, agents and doors."""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

from temporalio.client import Client, Interceptor
from temporalio.service import RPCError

from activities.refusals import Hears, only_logged
from orchestrator.engine.reaching import Reaching
from orchestrator.engine.sealing import data_converter
from orchestrator.engine.secured import PLAIN, Secured
from orchestrator.engine.silence import cause_of, refusal_in
from orchestrator.engine.task_timeout import TaskTimeout
from policies.model.errors import BadInput, NotAllowed, Unavailable

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
    traced: Sequence[Interceptor] = (),
    peer: str = "the engine",
    mend: str = "start ./run serve, or set PENSTOCK_TEMPORAL_ADDRESS",
) -> Client:
    """Return a client of the engine that seals with the keys.

    An agent names its queue, since its keys are those of its gateway alone; `refused` hears of every payload
    that is not opened. One that connects lazily says so with its first question, and reaches an engine
    that comes later. What is `shown` secures the connection: TLS, a certificate of one's own, an API key.
    What has `traced` stands in front of every call, and of what workers with this client do.
    Sentences call the other side `peer`, and tell people to `mend` what may be wrong.

    Raises:
        Unavailable: It does not answer; the sentence says why.
        NotAllowed: It refuses; the sentence has its own words.
        BadInput: The address has no port, or the key file is none.
    """
    if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdecimal():
        raise BadInput(f"{peer}'s address {address} has no port: write HOST:PORT; {mend}")
    try:
        return await Client.connect(
            address,
            namespace=namespace,
            data_converter=data_converter(payload_keys, queue, refused),
            interceptors=[TaskTimeout(), *traced, Reaching()],
            identity=identity,
            lazy=lazily,
            tls=shown.client_tls,
            api_key=shown.api_key,
        )
    except (RPCError, RuntimeError) as error:
        if (refusal := refusal_in(error)) is not None:
            raise NotAllowed(f"{peer} at {address} refuses this host: {refusal}") from error
        raise Unavailable(f"{peer} at {address} does not answer: {cause_of(error)}; {mend}") from error
