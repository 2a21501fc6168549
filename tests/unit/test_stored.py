"""What is offered while a command is stored that no worker has carried out."""

from datetime import UTC, datetime

from policies.model.command import CommandKind, StoredCommand
from policies.model.offer import Offer, Verb
from policies.status.stored import after_stored

AT = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
VERBS = (Verb.HOLD, Verb.QUARANTINE, Verb.ROLL_BACK, Verb.EXTEND)
OFFERS = tuple(Offer(verb=verb, fleet="edge") for verb in VERBS)


def stored(kind: CommandKind) -> tuple[StoredCommand, ...]:
    return (StoredCommand(kind=kind, person="ana", reason="users call", at=AT),)


def verbs(offers: tuple[Offer, ...]) -> list[Verb]:
    return [one.verb for one in offers]


def test_beside_a_stored_command_only_a_rollback_and_drains_are_offered() -> None:
    """`status` offered the very hold that was stored, and what is not held any more once it is read."""
    assert after_stored(OFFERS, ()) == OFFERS
    assert verbs(after_stored(OFFERS, stored(CommandKind.HOLD))) == [Verb.ROLL_BACK, Verb.EXTEND]


def test_beside_a_stored_rollback_no_command_is_offered() -> None:
    assert verbs(after_stored(OFFERS, stored(CommandKind.ROLL_BACK))) == [Verb.EXTEND]


def test_a_rollback_stays_offered_beside_a_stored_command_that_cannot_be_opened() -> None:
    sealed = StoredCommand(at=AT, unopened="its key is gone")
    assert verbs(after_stored(OFFERS, [sealed])) == [Verb.ROLL_BACK, Verb.EXTEND]
