"""Keys that seal what travels through the engine: one for the orchestrator, one for each gateway.

The orchestrator's file has one `name:hex` line per master key, in any order: what is sealed can be opened
with each of them. Keys are changed by adding a line, and taking the old one away once every gateway has
been handed the new one. From each master comes a key for every gateway's queue (HKDF with SHA-256, RFC 5869).
A gateway's own file has those derived keys under the same names and nothing else: whoever steals it can read
and forge what is between the orchestrator and this gateway only. The API's file has `name:api:hex` lines,
with the key of what goes between API and workers: it opens and forges nothing of any gateway.
"""

from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from activities.drivers.rights import read_own
from policies.model.errors import BadInput

KEY_BYTES = 32
API = "api:"
"""Marks the API's keys in a file, so that no worker and no relay takes them for master keys."""
DERIVED = 30_000
"""Derived keys that are kept at hand: more than a large fleet has, while its keys are being changed."""


class Keys(Protocol):
    """What seals and opens for the orchestrator (no queue) or for the gateway of a queue."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys."""
        ...

    def key(self, name: str, queue: str | None) -> AESGCM | None:
        """Return the key of that name; None when there is none for this queue here."""
        ...


class MasterKeys:
    """The orchestrator's keys: everything between it and any gateway can be opened with them."""

    def __init__(self, masters: dict[str, bytes]) -> None:
        self._masters = masters
        self._made = lru_cache(maxsize=DERIVED)(lambda name, queue: AESGCM(self._derive(name, queue)))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys."""
        return tuple(self._masters)

    def key(self, name: str, queue: str | None) -> AESGCM | None:
        """Return the key of that name; None when there is none."""
        return self._made(name, queue) if name in self._masters else None

    def lines_for(self, queue: str) -> str:
        """Return the key file of the gateway with this queue: a `name:hex` line for each key."""
        return "".join(f"{name}:{self._derive(name, queue).hex()}\n" for name in self._masters)

    def lines_for_api(self) -> str:
        """Return the key file of an API: a `name:api:hex` line for each key."""
        return "".join(f"{name}:{API}{self._derive(name, None).hex()}\n" for name in self._masters)

    def _derive(self, name: str, queue: str | None) -> bytes:
        purpose = b"penstock orchestrator" if queue is None else b"penstock gateway\0" + queue.encode()
        return HKDF(SHA256(), KEY_BYTES, None, purpose).derive(self._masters[name])


class DerivedKeys:
    """One gateway's keys, or those of an API, where the queue is None: they open nothing of anybody else."""

    def __init__(self, keys: dict[str, bytes], queue: str | None) -> None:
        self._keys = {name: AESGCM(key) for name, key in keys.items()}
        self._queue = queue

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys."""
        return tuple(self._keys)

    def key(self, name: str, queue: str | None) -> AESGCM | None:
        """Return the key of that name; None when there is none, or the queue is another one."""
        return self._keys.get(name) if queue == self._queue else None


class KeyFile:
    """The keys of a file, read again when it has changed: new keys need no restart.

    A file that cannot be read any more, or is being written, leaves the keys that were read before.
    """

    def __init__(self, path: Path, queue: str | None) -> None:
        """Read the orchestrator's file, or that of the gateway with this queue; BadInput if it is none."""
        self.obeys = queue is not None
        self._path, self._queue = path, queue
        self._read_at: tuple[int, int] | None = None
        self._keys = self._made()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys."""
        return self._now().names

    def key(self, name: str, queue: str | None) -> AESGCM | None:
        """Return the key of that name; None when there is none for this queue here."""
        return self._now().key(name, queue)

    def _now(self) -> Keys:
        with suppress(OSError, BadInput):
            found = self._path.stat()
            written = (found.st_mtime_ns, found.st_ino)
            if written != self._read_at:
                self._keys, self._read_at = self._made(), written
        return self._keys

    def _made(self) -> Keys:
        found = _keys_in(self._path)
        if self._queue is None and not found.is_of_api:
            return MasterKeys(found.keys)
        return DerivedKeys(found.keys, self._queue)


class _Found(NamedTuple):
    """The keys of a file by name."""

    keys: dict[str, bytes]
    is_of_api: bool


def read_keys(path: Path, *, of: int | None = None) -> dict[str, bytes]:
    """Return the master keys, or one gateway's keys, of a file by name; the user `of` may own it, too.

    Raises:
        BadInput: the file cannot be read, others can read it, it is an API's, or a line of it is no key.
    """
    found = _keys_in(path, of)
    if found.is_of_api:
        raise BadInput(
            f"the payload key file {path} has the keys of an API, which seal nothing for a gateway; name the "
            "file of the master keys"
        )
    return found.keys


def _keys_in(path: Path, of: int | None = None) -> _Found:
    try:
        text = read_own(path, secret=True, of=of).decode()
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        pairs = [(name, value) for name, _, value in (line.partition(":") for line in lines)]
        keys = {name: bytes.fromhex(value.removeprefix(API)) for name, value in pairs}
    except FileNotFoundError:
        raise BadInput(
            f"the payload key file {path} is not there: penstock agent renew gets that of a gateway, "
            "penstock keys api makes that of an API, and the orchestrator's is written by hand; where "
            "nothing is sealed, take payload_keys away"
        ) from None
    except OSError as error:
        raise BadInput(
            f"the payload key file {path} cannot be read: {error.strerror}; it has to belong to the user "
            "whom this process runs as"
        ) from error
    except ValueError:
        raise BadInput(f"the payload key file {path} cannot be read as lines of name:hex") from None
    if not keys or any(not name or len(key) != KEY_BYTES for name, key in keys.items()):
        raise BadInput(f"the payload key file {path} needs lines of a name and {KEY_BYTES} bytes in hex")
    of_api = {value.startswith(API) for _, value in pairs}
    if len(of_api) > 1:
        raise BadInput(f"the payload key file {path} has keys of an API beside others; write it anew")
    return _Found(keys, of_api.pop())
