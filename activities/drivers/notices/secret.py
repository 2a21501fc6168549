"""What sinks show to receivers, who may give it back in what they answer: people are told that without it."""

import html
import json
from collections.abc import Collection, Iterator
from itertools import groupby
from urllib.parse import quote, unquote

PIECE = 8
"""Characters of a secret in a row that are hidden wherever they stand; who knows fewer cannot use them."""

_END = 3
"""Characters that are hidden at an end that was cut off, where a secret may have begun."""


def without(said: str, secrets: Collection[str]) -> str:
    """Return what somebody else said with `…` for every piece of a secret, in any usual way of writing it."""
    hidden = [False] * len(said)
    for form in {form for secret in secrets if secret for form in _written(secret)}:
        size = min(len(form), PIECE)
        pieces = {form[at : at + size] for at in range(len(form) - size + 1)}
        for at in range(len(said) - size + 1):
            if said[at : at + size] in pieces:
                hidden[at : at + size] = [True] * size
        ends = (length for length in range(size - 1, _END - 1, -1) if said.endswith(form[:length]))
        if length := next(ends, 0):
            hidden[-length:] = [True] * length
    runs = groupby(zip(said, hidden, strict=True), key=lambda one: one[1])
    return "".join("…" if hides else "".join(shown for shown, _ in run) for hides, run in runs)


def _written(secret: str) -> Iterator[str]:
    """Yield how a secret is written in headers, JSON, addresses and pages."""
    yield from (secret, " ".join(secret.split()), json.dumps(secret)[1:-1])
    yield from (quote(secret), quote(secret, safe=""), unquote(secret), html.escape(secret))
