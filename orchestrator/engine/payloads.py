"""Seal what travels through the engine, so that its database and its web page show nothing of it.

AES-256-GCM with a fresh 96-bit nonce for every payload (NIST SP 800-38D), the key's name bound
in as associated data. The key file has one `name:hex` line per key: the first one seals, every
one opens, so keys are changed by putting a new line on top.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultFailureConverter, PayloadCodec, PayloadConverter

from policies.model.errors import BadInput

ENCODING = b"binary/penstock-sealed"
KEY_NAME = "penstock-key"
KEY_BYTES = 32
NONCE_BYTES = 12

MOST_OF_A_MESSAGE, MOST_OF_A_CAUSE, MOST_OF_A_TRACE = 2_000, 500, 500
"""Bytes of what a failure says, of what its cause says, and of the trace of each.

The engine keeps 4 KiB of the last failure of a step that is tried again, and of a longer one only says
that it was too long (`limit.mutableStateActivityFailureSize.error`); the log has the whole trace.
"""


class SealedPayloads(PayloadCodec):
    """Seals every payload with the first key; opens those of every key, and leaves plain ones as they are."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._keys = {name: AESGCM(key) for name, key in keys.items()}
        self._current = next(iter(keys))

    async def encode(self, payloads: Iterable[Payload]) -> list[Payload]:
        """Return the payloads sealed."""
        return [self._seal(payload) for payload in payloads]

    async def decode(self, payloads: Iterable[Payload]) -> list[Payload]:
        """Return the payloads opened.

        Raises:
            BadInput: sealed with a key that is not in the file, or altered.
        """
        return [self._open(payload) for payload in payloads]

    def _seal(self, payload: Payload) -> Payload:
        nonce, name = os.urandom(NONCE_BYTES), self._current.encode()
        sealed = self._keys[self._current].encrypt(nonce, payload.SerializeToString(), name)
        return Payload(metadata={"encoding": ENCODING, KEY_NAME: name}, data=nonce + sealed)

    def _open(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        name = payload.metadata.get(KEY_NAME, b"")
        key = self._keys.get(name.decode(errors="replace"))
        if key is None:
            raise BadInput("a payload is sealed with a key that is not in the payload key file")
        try:
            content = key.decrypt(payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:], name)
        except InvalidTag as error:
            raise BadInput("a payload was altered, or its key has another name now") from error
        return Payload.FromString(content)


class Failures(DefaultFailureConverter):
    """Writes failures that the engine keeps whole; reads one without details that cannot be decoded.

    A workflow that cannot read why one gateway failed would look after none of the others any more.
    """

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        """Write the error with the end of its trace; an application failure has its nearest cause only."""
        super().to_failure(exception, payload_converter, failure)
        failure.message = _cut(failure.message, slice(MOST_OF_A_MESSAGE))
        failure.stack_trace = _cut(failure.stack_trace, slice(-MOST_OF_A_TRACE, None))
        if failure.HasField("application_failure_info") and failure.HasField("cause"):
            failure.cause.message = _cut(failure.cause.message, slice(MOST_OF_A_CAUSE))
            failure.cause.ClearField("cause")

    def from_failure(self, failure: Failure, payload_converter: PayloadConverter) -> BaseException:
        """Return the error, with its details where they can be decoded."""
        try:
            return super().from_failure(failure, payload_converter)
        except Exception:  # noqa: BLE001 - whatever the details do to their decoder
            bare = Failure()
            bare.CopyFrom(failure)
            bare.ClearField("encoded_attributes")
            for info in ("application_failure_info", "canceled_failure_info"):
                if bare.HasField(info):
                    getattr(bare, info).ClearField("details")
            if bare.HasField("timeout_failure_info"):
                bare.timeout_failure_info.ClearField("last_heartbeat_details")
            return super().from_failure(bare, payload_converter)


def _cut(text: str, kept: slice) -> str:
    return text.encode()[kept].decode(errors="ignore")


def data_converter(keys: Path | None) -> DataConverter:
    """Return how values travel: as JSON of their models, sealed if there is a key file.

    Raises:
        BadInput: the key file cannot be read, or holds something else than keys.
    """
    codec = SealedPayloads(read_keys(keys)) if keys is not None else None
    return replace(pydantic_data_converter, failure_converter_class=Failures, payload_codec=codec)


def read_keys(path: Path) -> dict[str, bytes]:
    """Return the keys of a file by name, the sealing one first.

    Raises:
        BadInput: the file cannot be read, or a line of it is no key.
    """
    try:
        lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        keys = {name: bytes.fromhex(value) for name, _, value in (line.partition(":") for line in lines)}
    except (OSError, ValueError):
        raise BadInput(f"the payload key file {path} cannot be read as lines of name:hex") from None
    if not keys or any(not name or len(key) != KEY_BYTES for name, key in keys.items()):
        raise BadInput(f"the payload key file {path} needs lines of a name and {KEY_BYTES} bytes in hex")
    return keys
