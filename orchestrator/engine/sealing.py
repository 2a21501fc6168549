"""Seal what travels through the engine, so that its database and its web page show nothing of it.

AES-256-GCM with a fresh key and a fresh 96-bit nonce for every payload (NIST SP 800-38D); the key
travels with it, wrapped in the same way for every key of the file. So keys are changed without a moment
at which somebody has the new one and somebody else does not. Bound in as associated data is where the
payload belongs: the namespace, the workflow, and for a step its type and queue. A payload that was taken
from one change, step or gateway and put into another opens nowhere.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter
from temporalio.converter import (
    ActivitySerializationContext,
    CompositePayloadConverter,
    DataConverter,
    EncodingPayloadConverter,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)

from activities.refusals import Hears, only_logged
from orchestrator.engine.failures import Failures, SealedFailures
from orchestrator.engine.keys import KEY_BYTES, KeyFile
from policies.model.errors import BadInput
from policies.model.fleet import GATEWAY_QUEUE

ENCODING = b"binary/penstock-sealed"
REFUSED = b"binary/penstock-refused"
"""The encoding of what the orchestrator has in place of a payload that was not opened.

Nothing converts it: a signal that carries it is dropped, an update is refused, a gateway's answer is a
bad one. An error would stop the whole workflow, for anybody who reaches the engine and for one bad agent.
"""

WRAPPED = "penstock-key/"
"""Under this and a key's name lies the payload's own key, sealed for that one."""

NONCE_BYTES = 12

RENEW = (
    ": name payload_keys in its agent's file, type `penstock agent renew --config FILE` on its host, and "
    "restart the agent"
)
"""What mends an agent that seals nothing, or with keys that are not the orchestrator's any more."""

_SCHEDULED = re.compile(r"^(reconcile/.*)-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
"""What the engine puts behind the id of a workflow that a schedule starts: whoever seals cannot know it."""


class _Unopened(EncodingPayloadConverter):
    """Says why a payload was not opened, to whoever wants its value."""

    @property
    def encoding(self) -> str:
        return REFUSED.decode()

    def to_payload(self, value: Any) -> Payload | None:  # noqa: ARG002 - the port's
        return None

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:  # noqa: ARG002 - the port's
        raise BadInput(payload.data.decode())


class OpenedPayloads(CompositePayloadConverter):
    """Values of what was opened, as JSON of their models."""

    def __init__(self) -> None:
        """Put what was not opened before all else."""
        super().__init__(_Unopened(), *PydanticPayloadConverter().converters.values())


class _Sealed(EncodingPayloadConverter):
    """Says to who has no keys why what is sealed cannot be read."""

    def __init__(self, mend: str) -> None:
        """Take what mends it."""
        self._mend = mend

    @property
    def encoding(self) -> str:
        return ENCODING.decode()

    def to_payload(self, value: Any) -> Payload | None:  # noqa: ARG002 - the port's
        return None

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:  # noqa: ARG002 - the port's
        raise BadInput(f"a payload is sealed, and there are no payload keys here: {self._mend}")


class PlainPayloads(CompositePayloadConverter):
    """Values of an orchestrator that seals nothing, as JSON of their models."""

    def __init__(self) -> None:
        """Put what is sealed before all else."""
        mend = "set PENSTOCK_PAYLOAD_KEYS, or take payload_keys out of its agent's file"
        super().__init__(_Sealed(mend), *PydanticPayloadConverter().converters.values())


class PlainPayloadsOfAgents(CompositePayloadConverter):
    """Values of an agent that seals nothing, as JSON of their models."""

    def __init__(self) -> None:
        """Put what is sealed before all else."""
        mend = "name payload_keys in the agent's file, type `penstock agent renew`, and restart the agent"
        super().__init__(_Sealed(mend), *PydanticPayloadConverter().converters.values())


class SealedPayloads(PayloadCodec, WithSerializationContext):
    """Seals every payload for every key; opens those for one of them that belong where they are."""

    def __init__(
        self,
        keys: KeyFile,
        refused: Hears = only_logged,
        context: SerializationContext | None = None,
    ) -> None:
        """Take the keys, what hears of refusals, and where the payloads belong."""
        self._keys = keys
        self._obeys = keys.obeys
        self._refused = refused
        self._context = context
        self._queue = _queue_of(context)
        self._mend = RENEW if self._queue is not None and not keys.obeys else ""
        self._place = _place_of(context)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys for which it seals now."""
        return self._keys.names

    def with_context(self, context: SerializationContext) -> "SealedPayloads":
        """Return the same for payloads that belong there."""
        return SealedPayloads(self._keys, self._refused, context)

    async def encode(self, payloads: Iterable[Payload]) -> list[Payload]:
        """Return the payloads sealed.

        Raises:
            BadInput: There is no key for where they belong.
        """
        return [self._seal(payload) for payload in payloads]

    async def decode(self, payloads: Iterable[Payload]) -> list[Payload]:
        """Return the payloads opened.

        Raises:
            BadInput: One is not sealed, or sealed with a key that is not here, or belongs elsewhere. With
                the orchestrator it becomes a payload that nothing converts instead.
        """
        return [self._opened(payload) for payload in payloads]

    def _seal(self, payload: Payload) -> Payload:
        own = os.urandom(KEY_BYTES)
        sealed = Payload(
            metadata={"encoding": ENCODING},
            data=_seal(AESGCM(own), payload.SerializeToString(), self._place),
        )
        for name in self._keys.names:
            if key := self._keys.key(name, self._queue):
                sealed.metadata[WRAPPED + name] = _seal(key, own, self._place)
        if len(sealed.metadata) == 1:
            raise BadInput(f"there is no payload key here for {self._place}")
        return sealed

    def _opened(self, payload: Payload) -> Payload:
        try:
            return self._open(payload)
        except BadInput as error:
            self._refused("refused: payload", f"{error} ({self._place})")
            if self._context is not None and not self._obeys:
                return Payload(metadata={"encoding": REFUSED}, data=str(error).encode())
            raise

    def _open(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            raise BadInput(f"a payload is not sealed, and only sealed ones are opened here{self._mend}")
        for name in self._keys.names:
            wrapped, key = payload.metadata.get(WRAPPED + name), self._keys.key(name, self._queue)
            if wrapped is not None and key is not None:
                return self._open_with(key, wrapped, payload.data)
        raise BadInput(f"a payload is sealed with a key that is not in the payload key file{self._mend}")

    def _open_with(self, key: AESGCM, wrapped: bytes, sealed: bytes) -> Payload:
        try:
            own = AESGCM(_open(key, wrapped, self._place))
            return Payload.FromString(_open(own, sealed, self._place))
        except Exception as error:
            raise BadInput("a payload was altered, or belongs to another change, step or gateway") from error


def _seal(key: AESGCM, content: bytes, place: str) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + key.encrypt(nonce, content, place.encode())


def _open(key: AESGCM, sealed: bytes, place: str) -> bytes:
    return key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())


def _queue_of(context: SerializationContext | None) -> str | None:
    """Return the gateway's queue that a step goes to; None for what stays with the orchestrator."""
    if isinstance(context, ActivitySerializationContext):
        queue = context.activity_task_queue or ""
        return queue if queue.startswith(GATEWAY_QUEUE) else None
    return None


def _place_of(context: SerializationContext | None) -> str:
    match context:
        case ActivitySerializationContext():
            step = (context.workflow_id, context.activity_type, context.activity_task_queue)
            return json.dumps(["step", context.namespace, *step, _own_id(context.activity_id)])
        case WorkflowSerializationContext():
            name = _SCHEDULED.sub(r"\1", context.workflow_id or "")
            return json.dumps(["workflow", context.namespace, name])
        case _:
            return json.dumps(["nowhere"])


def _own_id(step: str | None) -> str:
    """Return the id that a step was given, which no other one has; a number is a count of the client's."""
    return "" if step is None or step.isdigit() else step


def sealing_keys(converter: DataConverter) -> tuple[str, ...]:
    """Return the names of the keys for which this converter seals now; none where everything is plain."""
    codec = converter.payload_codec
    return codec.names if isinstance(codec, SealedPayloads) else ()


def data_converter(
    keys: Path | None, queue: str | None = None, refused: Hears = only_logged
) -> DataConverter:
    """Return how values travel: as JSON of their models, sealed if there is a key file.

    Args:
        keys: The key file; everything is plain without one.
        queue: The gateway's queue whose keys are in the file; None for the orchestrator's.
        refused: Hears of every payload that is not opened.

    Raises:
        BadInput: the key file cannot be read, or holds something else than keys.
    """
    if keys is None:
        plain = PlainPayloads if queue is None else PlainPayloadsOfAgents
        return replace(
            pydantic_data_converter, payload_converter_class=plain, failure_converter_class=Failures
        )
    return replace(
        pydantic_data_converter,
        payload_converter_class=OpenedPayloads,
        failure_converter_class=SealedFailures,
        payload_codec=SealedPayloads(KeyFile(keys, queue), refused),
    )
