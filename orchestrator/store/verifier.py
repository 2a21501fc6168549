"""Verifies an exported audit record against checkpoints kept elsewhere, alone: a file of 60 lines.

Run: python verifier.py RECORD.jsonl CHECKPOINTS.jsonl PUBLIC_KEY_HEX
An entry's `hash` is SHA-256 over its other fields, in their order, as a JSON list without spaces; `previous`
is the hash of the entry before. A checkpoint is `seq`, `hash`, `at` and an Ed25519 `signature` over these.
"""

import base64
import hashlib
import json
import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FIELDS = ("seq", "at", "person", "via", "action", "subject", "body", "previous", "fleet")
Rows = Iterable[Mapping[str, Any]]


def signed_text(point: Mapping[str, Any]) -> bytes:
    """Return what the signature of a checkpoint is over."""
    return f"penstock audit checkpoint\n{point['seq']}\n{point['hash']}\n{point['at']}\n".encode()


def first_fault(entries: Rows, checkpoints: Rows, key: Ed25519PublicKey | None) -> str | None:
    """Return the first thing that is wrong, None when the record is whole and every checkpoint fits it."""
    noted: dict[int, str] = {}
    seq, last = 0, "0" * 64
    for point in checkpoints:
        noted[point["seq"]] = point["hash"]
        try:
            if key is not None:
                key.verify(base64.b64decode(point["signature"]), signed_text(point))
        except InvalidSignature:
            return f"the checkpoint of entry {point['seq']} is not signed with this key"
    for entry in entries:
        if entry["seq"] != seq + 1:
            return f"audit entry {seq + 1} is missing"
        if entry["previous"] != last:
            return f"audit entry {entry['seq']} does not follow entry {seq}"
        fields = [entry[name] for name in FIELDS if entry.get(name) is not None]
        seq, last = (
            entry["seq"],
            hashlib.sha256(json.dumps(fields, separators=(",", ":")).encode()).hexdigest(),
        )
        if entry["hash"] != last:
            return f"audit entry {seq} was changed"
        if noted.get(seq, last) != last:
            first = 1 + max((one for one in noted if one < seq), default=0)
            return f"audit entry {seq} is not the one noted elsewhere; {first} to {seq} were written anew"
    end = max(noted, default=0)
    return None if end <= seq else f"audit entries {seq + 1} to {end} are missing at the end"


if __name__ == "__main__":
    record, points = (map(json.loads, pathlib.Path(path).read_text().splitlines()) for path in sys.argv[1:3])
    sys.exit(first_fault(record, points, Ed25519PublicKey.from_public_bytes(bytes.fromhex(sys.argv[3]))))
