"""Stored: what makes sense while commands are stored that no worker has carried out yet."""

from collections.abc import Sequence

from policies.model.command import CommandKind, StoredCommand
from policies.model.offer import Offer, Verb

_COMMANDS = frozenset(kind.value for kind in CommandKind)


def after_stored(offers: Sequence[Offer], stored: Sequence[StoredCommand]) -> tuple[Offer, ...]:
    """Return the offers without commands that the stored ones may answer already.

    A change reads them in their order, and what it offers is from before them. Only a rollback is offered
    beside another command: it makes sense whatever that leads to.
    """
    if not stored:
        return tuple(offers)
    kinds = {one.kind for one in stored}
    more = set() if CommandKind.ROLL_BACK in kinds else {Verb.ROLL_BACK}
    return tuple(one for one in offers if one.verb.value not in _COMMANDS or one.verb in more)
