"""What a fleet has seen of each channel, on disk: one small file per product and channel, growing only."""

import os
import secrets
from collections.abc import Callable
from fcntl import LOCK_EX, flock
from pathlib import Path

from policies.model.verification import TrustState


class TrustStates:
    """The states under one folder; each change is atomic and loses no other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, product: str, channel: str) -> TrustState:
        """Return what was seen so far; a channel nobody has seen is empty."""
        path = self._path(product, channel)
        return TrustState.model_validate_json(path.read_bytes()) if path.exists() else TrustState()

    def change(self, product: str, channel: str, step: Callable[[TrustState], TrustState]) -> TrustState:
        """Replace the state by what `step` makes of it; return it."""
        path = self._path(product, channel)
        with (self._folder / "lock").open("w") as lock:
            flock(lock, LOCK_EX)
            before = self.read(product, channel)
            after = step(before)
            if after != before:
                temporary = path.with_suffix(f".{secrets.token_hex(4)}")
                with temporary.open("wb") as file:
                    file.write(after.model_dump_json().encode())
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
        return after

    def _path(self, product: str, channel: str) -> Path:
        return self._folder / f"{product}@{channel}.json"
