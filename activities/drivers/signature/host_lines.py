"""Lines of hosts' own records, verified: who signed each, and whether it follows the one before."""

import base64
import json
from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from activities.host_record import FIRST
from policies.model.value import digest_of


def first_fault(
    lines: Iterable[str], public_key: str, before: str | None = FIRST, number: int = 0
) -> str | None:
    """Return what is wrong with these lines of a host's record, None when they are whole.

    Args:
        lines: The oldest first.
        public_key: The host's, in base64.
        before: The digest of the line that they follow; None when that is gone.
        number: How many lines are before them.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
    except ValueError:
        return f"line {number + 1} comes with something that is no key"
    for line in lines:
        number += 1
        try:
            said = json.loads(line)
            entry = said["entry"]
            key.verify(base64.b64decode(said["signature"]), json.dumps(entry, sort_keys=True).encode())
            follows = entry["number"] == number and before in (None, entry["before"])
            told = all(isinstance(entry[name], str) for name in ("person", "action", "sentence"))
        except (ValueError, KeyError, TypeError, RecursionError, InvalidSignature):
            return f"line {number} was altered, or another key signed it"
        if not told:
            return f"line {number} does not tell who did what"
        if not follows:
            return f"line {number} does not follow the one before it"
        before = digest_of(line.encode() + b"\n")
    return None
