"""Errors a person can act on: what was wrong, where, and what to do.

PenstockError
├── BadInput          a file, argument or machine is not as it must be   (exit 2)
│   └── Unknown       nothing that this person may see has that name
├── NotAllowed        this person may not do this                         (exit 4)
├── Refused           a policy says no: trust, capacity, limits           (exit 5)
│   ├── TrustError    with the verdict's name as its code
│   ├── Fenced        an abandoned wave's order, refused by the gateway's host
│   ├── ForeignOrder  an order for another gateway than the host that got it
│   └── BeyondHostLimits  an order that goes further than the host's own limits
├── Conflict          something else is under way, or the plan is stale   (exit 9)
│   ├── ChangeEnded   something would go on with a change that has its end
│   ├── InstanceGone  the instance that an order is about does not run any more
│   └── LeaseLapsed   the trial that was to be renewed has ended already
└── Unavailable       a peer did not answer; trying again may help        (exit 1, retryable)
    └── NotOrdered    it did not answer before any order was sent
"""

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:  # the models take half of a short command's time, and a sentence needs none of them
    from policies.model.offer import Offer


class PenstockError(Exception):
    """An error whose sentence is meant for the operator, with what to ask next."""

    def __init__(self, sentence: str = "", *offers: "Offer") -> None:
        super().__init__(sentence)
        self.offers = offers

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    details: tuple[dict[str, int | str], ...] = ()
    """What programs need to know of it beside its sentence, as it travels through the engine."""

    @property
    def code(self) -> str:
        """The stable name of this error, equal to its runbook heading."""
        return type(self).__name__


class BadInput(PenstockError):
    """A file, argument or machine is not as it must be; nothing was changed."""

    exit_code = 2


class Unknown(BadInput):
    """Nothing that this person may see has that name; whether others may is not said."""


class NotAllowed(PenstockError):
    """This person may not do this."""

    exit_code = 4


class Refused(PenstockError):
    """A policy says no; the sentence names the policy and what would satisfy it."""

    exit_code = 5


class Fenced(Refused):
    """A newer rollout or rollback owns the gateway; the order came from one that was given up.

    `epoch` is the newest that the host has seen: an order of a later one is obeyed. `rollout` is whose it is.
    """

    def __init__(self, sentence: str, epoch: int, rollout: str = "") -> None:
        super().__init__(sentence)
        self.details = ({"epoch": epoch, "rollout": rollout},)


class ForeignOrder(Refused):
    """An order for another gateway than the host that got it; nothing was done."""


class BeyondHostLimits(Refused):
    """An order that goes further than the host's own limits, whoever gives it; nothing was done."""


class OtherContent(Refused):
    """The key came before with another request; a new request needs a key of its own."""


class Conflict(PenstockError):
    """Something else is under way, or what was shown is no longer so."""

    exit_code = 9


class ChangeEnded(Conflict):
    """Something would begin or go on with a change that has its end already."""


class InstanceGone(Conflict):
    """The instance that the order is about does not run: it was never started, or it has ended by itself."""


class LeaseLapsed(Conflict):
    """The slot is not on trial any more, so its lease was not renewed; the kernel has sent people back."""


class Unavailable(PenstockError):
    """A peer did not answer in time; the same call may succeed later."""

    retryable = True


class NotOrdered(Unavailable):
    """A peer did not answer before any order was sent, so nothing is stored."""


class TooMany(PenstockError):
    """Somebody asks too often; nothing was done, and it may be tried again in a moment."""

    retryable = True

    def __init__(self, sentence: str, after: float) -> None:
        super().__init__(sentence)
        self.after = after
        """Seconds until it may be tried again."""
