"""What sinks say of a notice in plain text, each line bounded and printable."""

from collections.abc import Callable

from policies.model.notice import Notice
from policies.model.offer import Offer
from policies.model.value import sentence

Spell = Callable[[Offer], str]
"""How a sink's readers give the order that is offered."""


def headline(notice: Notice) -> str:
    """Return what happened in one printable line."""
    return sentence(notice.headline, 200)


def lines(notice: Notice, spell: Spell) -> tuple[str, ...]:
    """Return the rest: to how many users, why, what is next, and what can be done."""
    said = [sentence(one) for one in notice.sentences]
    if notice.offers:
        said += ["What you can do:", *(f"  {sentence(spell(offer))}" for offer in notice.offers)]
    if notice.runbook is not None:
        said.append(f"Runbook: {notice.runbook}")
    return tuple(said)
