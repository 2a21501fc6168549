"""Marks on task tokens: a gateway answers for those tasks alone that were handed to itself.

The engine's tokens can be guessed, and whoever has one may complete its task. So each leaves a relay with an
HMAC over itself and the gateway's queue in front, and comes back with it. Relays share the key and no state.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from pathlib import Path

from activities.drivers.private_files import make_private, read_private
from policies.model.errors import BadInput

KEY_BYTES = 32
_MARK_BYTES = hashlib.sha256().digest_size


class TaskTokens:
    """Marks tokens with the first key; takes the marks of every key."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def mark(self, token: bytes, task_queue: str) -> bytes:
        """Return the token as it is handed to the gateway of that queue."""
        return _mark(self._keys[0], token, task_queue) + token

    def unmark(self, marked: bytes, task_queue: str) -> bytes | None:
        """Return the engine's own token; None unless it was handed to the gateway of that queue."""
        mark, token = marked[:_MARK_BYTES], marked[_MARK_BYTES:]
        known = [hmac.compare_digest(mark, _mark(key, token, task_queue)) for key in self._keys]
        return token if any(known) else None


def _mark(key: bytes, token: bytes, task_queue: str) -> bytes:
    return hmac.digest(key, task_queue.encode() + b"\0" + token, "sha256")


def read_token_keys(path: Path) -> tuple[bytes, ...]:
    """Return the keys in the file, one a line in hexadecimal; a first one is made when there is no file.

    Raises:
        BadInput: It cannot be read or made, others can read it, or it holds no keys.
    """
    if not path.exists():
        try:
            make_private(path, f"{secrets.token_hex(KEY_BYTES)}\n".encode())
        except OSError as error:
            raise BadInput(f"the relay's key {path} cannot be made: {error.strerror}") from error
    lines = read_private(path, "the relay's key").split()
    try:
        keys = tuple(bytes.fromhex(line.decode()) for line in lines)
    except ValueError:
        keys = ()
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise BadInput(f"{path} holds no keys: write {KEY_BYTES * 2} hexadecimal digits into each line")
    return keys
