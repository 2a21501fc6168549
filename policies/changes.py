"""Tell what a release changes beside its programs.

Configuration outside the whitelist can undo everything a signature protects (an open
listener, another authentication), so it takes people of its own to say yes: `policies.approvals`.
"""

import re

from policies.lines import lines_in
from policies.model.trust import ApprovalRules, Change
from policies.model.value import Digest, digest_of

CREDENTIALS = re.compile(r"key|secret|passw|passwd|token|credential|cert|radius|auth|pin$|psk", re.IGNORECASE)
"""Keys of the daemons' configuration that hold or lead to credentials."""

LITERAL_SECRET = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\$[1256aby]{1,2}\$")
"""Private keys and password hashes, which belong into no template."""


def change_between(manifest: Digest, before: str | None, after: str) -> Change:
    """Return how the template of a release differs from the one in use."""
    old, new = _settings(before or ""), _settings(after)
    keys = tuple(sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)))
    secret = {key for key in keys if CREDENTIALS.search(key)}
    secret.update(key for key in keys if LITERAL_SECRET.search("\n".join(new.get(key, ()))))
    return Change(
        manifest=manifest,
        before=digest_of(before.encode()) if before is not None else None,
        after=digest_of(after.encode()),
        keys=keys,
        credentials=tuple(sorted(secret)),
    )


def beyond_whitelist(change: Change, rules: ApprovalRules) -> tuple[str, ...]:
    """Return the keys in this change that the whitelist does not cover."""
    return tuple(sorted(set(change.keys) - set(rules.config.unless_keys_in)))


def _settings(text: str) -> dict[str, tuple[str, ...]]:
    """Return every setting with its values in order; lines that are no setting count as one of their own."""
    found: dict[str, tuple[str, ...]] = {}
    for raw in lines_in(text):
        line = raw.strip()
        if line and not line.startswith(("#", ";")):
            key, value = (*re.split(r"\s*=\s*|\s+", line, maxsplit=1), "")[:2]
            found[key] = (*found.get(key, ()), value)
    return found
