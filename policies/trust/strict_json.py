"""JSON as signed documents must have it: one meaning only, and small.

Ordinary parsers take the last of two equal keys and pass NaN through, so two readers can
see two documents under one signature. Here both are refused.
"""

import json
import re
from itertools import accumulate
from typing import Any, NoReturn

from policies.model.refusals import ManifestInvalid

MAX_BYTES = 65_536
MAX_DEPTH = 32

STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""A string of JSON; one without an end is all that follows, and looked through once."""

BRACKETS = re.compile(rb"[\[\]{}]")


def loads(raw: bytes, *, max_bytes: int = MAX_BYTES, fractions: bool = False) -> Any:
    """Return the one meaning of these bytes.

    Args:
        raw: The document.
        max_bytes: The most that it may have.
        fractions: Whether numbers such as 1.5 are taken; a listing of a registry is not signed.

    Raises:
        ManifestInvalid: not UTF-8, not JSON, a key twice, NaN or Infinity, too deep or too long.
    """
    if len(raw) > max_bytes:
        raise ManifestInvalid(f"the document is {len(raw)} bytes; {max_bytes} at most", reason="size")
    if _deepest(raw) > MAX_DEPTH:
        raise ManifestInvalid(f"the document is nested deeper than {MAX_DEPTH} levels", reason="depth")
    try:
        found = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_each_key_once,
            parse_constant=_no_constant,
            parse_float=float if fractions else _no_float,
        )
        dumps(found)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ManifestInvalid(f"the document is not JSON: {error}", reason="syntax") from error
    except UnicodeError as error:
        raise ManifestInvalid("the document holds something that is no text", reason="syntax") from error
    except ValueError as error:
        raise ManifestInvalid("the document has a number that is too long", reason="number") from error
    return found


def _deepest(raw: bytes) -> int:
    """Return the nesting depth outside strings, before any parser recurses into it."""
    brackets = BRACKETS.findall(STRING.sub(b"", raw))
    return max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ManifestInvalid(f"the document has the key {key[:40]!r} twice", reason="duplicate")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ManifestInvalid(f"the document holds {name}, which is no number", reason="number")


def _no_float(text: str) -> NoReturn:
    raise ManifestInvalid(f"the document holds {text[:40]}, which is not a whole number", reason="number")


def dumps(value: Any) -> bytes:
    """Return compact JSON with sorted keys: equal values are equal bytes."""
    return json.dumps(
        value, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False
    ).encode()
