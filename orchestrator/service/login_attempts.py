"""Attempts to log in at the identity provider: each is one browser's, and good for minutes.

What an attempt needs to be known again travels with it, signed by a secret that the browser alone has in a
cookie: nothing is kept here that strangers could fill up, and two tabs of one browser have an attempt each.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self

from policies.model.errors import NotAllowed

LEEWAY_SECONDS = 30.0
"""How far two clocks may be apart: the provider's, or that of another API."""

ATTEMPT_LIVES = timedelta(minutes=10)
"""How long somebody may take at the provider."""

SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
"""A secret of a browser: 32 bytes of chance."""

PARTS = 4


def new_browser() -> str:
    """Return a secret for a browser that has none yet."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True)
class LoginAttempt:
    """One attempt: what the provider is told of it, and what is told when its code is redeemed."""

    state: str
    """What comes back with the code (RFC 6749, section 4.1.1)."""
    to: str
    """The path of ours that was wanted."""
    nonce: str
    """What the ID token has to name (OpenID Connect Core 1.0, section 3.1.2.1)."""
    verifier: str = field(repr=False)
    """What only whoever began it can know (RFC 7636, section 4.1)."""

    @property
    def challenge(self) -> str:
        """What the provider may know of the verifier (RFC 7636, section 4.2)."""
        return _written(hashlib.sha256(self.verifier.encode()).digest())

    @classmethod
    def begun(cls, browser: str, to: str) -> Self:
        """Return a new attempt of the browser with that secret, which wants to see that path."""
        said = f"{secrets.token_urlsafe(16)}.{int(time.time())}.{_written(to.encode())}"
        return cls._of(browser, said, to)

    @classmethod
    def known(cls, browser: str, state: str) -> Self:
        """Return the attempt that has come back to the browser with that secret.

        Raises:
            NotAllowed: Another browser began it, or nobody did, or it was too long ago.
        """
        said, _, _ = state.rpartition(".")
        fields = state.split(".")
        own = SECRET.fullmatch(browser) and len(fields) == PARTS
        if not own or not hmac.compare_digest(_signed(browser, "state", said).encode(), fields[-1].encode()):
            raise NotAllowed("this browser has not begun this login, or did so too long ago; log in again")
        try:
            age = time.time() - int(fields[1])
            to = base64.urlsafe_b64decode(fields[2] + "==").decode()
        except (ValueError, binascii.Error) as error:
            raise NotAllowed("this login is none of penstock's; log in again") from error
        if age < -LEEWAY_SECONDS:
            raise NotAllowed("this login was begun at a later time than it is here: two clocks differ")
        if age > ATTEMPT_LIVES.total_seconds():
            minutes = int(ATTEMPT_LIVES.total_seconds() / 60)
            raise NotAllowed(f"this login was begun more than {minutes} minutes ago; log in again")
        return cls._of(browser, said, to)

    @classmethod
    def _of(cls, browser: str, said: str, to: str) -> Self:
        return cls(
            state=f"{said}.{_signed(browser, 'state', said)}",
            to=to,
            nonce=_signed(browser, "nonce", said),
            verifier=_signed(browser, "verifier", said),
        )


def _signed(browser: str, use: str, said: str) -> str:
    return _written(hmac.digest(browser.encode(), f"{use} {said}".encode(), "sha256"))


def _written(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
