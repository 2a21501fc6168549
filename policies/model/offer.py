"""Offers: what may be asked next, as data; each frontend spells it in its own way."""

from enum import StrEnum

from policies.model.value import Name, Value


class Verb(StrEnum):
    """What may be asked, whatever a frontend calls it."""

    STATUS = "status"
    DOCTOR = "doctor"
    WATCH = "watch"
    HISTORY = "history"
    PLAN = "plan"
    START = "start"
    INSTALL = "install"
    RELOAD = "reload"
    CONFIGURE = "configure"
    EXAMINE = "examine"
    HOLD = "hold"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"
    ROLL_BACK = "roll_back"
    HAND_BACK = "hand_back"
    APPROVE = "approve"
    REJECT = "reject"
    QUARANTINE = "quarantine"
    RETURN = "return"
    REBUILD = "rebuild"
    SESSIONS = "sessions"
    DRAINS = "drains"
    EXTEND = "extend"
    END = "end"
    UNPIN = "unpin"
    WINDOWS = "windows"
    RELEASES = "releases"
    SNAPSHOTS = "snapshots"
    TOKENS = "list_tokens"
    CREDENTIAL = "create_token"
    WHOAMI = "whoami"
    LOGIN = "login"


class Offer(Value):
    """One thing that makes sense now: to which fleet or gateway, with what, and what to know of it."""

    verb: Verb
    fleet: Name | None = None
    gateway: Name | None = None
    release: str | None = None
    """The release that is meant, where one is to be named."""
    plan: str | None = None
    strategy: str | None = None
    hold_of: str | None = None
    """Whose hold is lifted."""
    force: bool = False
    settings: bool = False
    """Of a rollback: of the last change of settings, and not of the release."""
    note: str = ""
    """A condition that whoever asks should know, such as who may."""


class Refusal(Value):
    """Why something is refused, and what makes sense instead."""

    sentence: str
    next: tuple[Offer, ...] = ()

    def __str__(self) -> str:
        """The sentence alone."""
        return self.sentence
