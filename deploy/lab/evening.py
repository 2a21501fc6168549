"""The evening before: what people say in the room while the change waits, and what each is answered.

Somebody whom penstock does not know asks for the way back, a colleague holds, and sends a code that somebody
else was given; nothing of it moves anybody. The hold is lifted last, so that the night begins as planned.
"""

from collections.abc import Callable
from dataclasses import dataclass

from deploy.lab.chat_room import COLLEAGUE, PERSON, STRANGER, LabRoom
from deploy.lab.lab import FLEET
from policies.model.errors import Unavailable


@dataclass(frozen=True)
class Evening:
    """What was answered to each of them; empty what was not as it has to be."""

    stranger: str
    """To whoever is in the room and linked to nobody."""
    held: str
    """To the colleague who held the change, and who lifted the hold again."""
    others_code: str
    """To the same colleague, with a code that was given to somebody else."""


async def evening(room: LabRoom, tell: Callable[[str], None]) -> Evening:
    """Have them say it one after the other; each answer is told with what was said.

    Raises:
        Unavailable: Somebody is not answered, or the hold is not lifted again.
    """

    async def asked(person: str, text: str) -> str:
        _, answer = await room.asks(text, person)
        tell(f"{person}, in the room: !penstock {text}\npenstock: {answer.body}")
        return answer.body

    stranger = await asked(STRANGER, f"rollback {FLEET}")
    held = await asked(COLLEAGUE, f"hold {FLEET} I read what is new in it first")
    code = await room.asks_for_code(f"rollback {FLEET} can it wait for another night?")
    tell(f"{PERSON}, in the room, asks for a rollback, is given a code, and does not send it")
    others_code = await asked(COLLEAGUE, f"confirm {code}")
    lifted = await asked(COLLEAGUE, f"resume {FLEET} nothing in it speaks against tonight")
    if not lifted.startswith(f"{COLLEAGUE}: ") or "Nothing was done" in lifted:
        raise Unavailable(f"the hold of {COLLEAGUE} is not lifted: {lifted}")
    return Evening(
        stranger=stranger if f"{STRANGER}: this chat account is not linked to a person" in stranger else "",
        held=held if held.startswith(f"{COLLEAGUE}: ") and "Nothing was done" not in held else "",
        others_code=others_code if f"only {PERSON} can confirm this" in others_code else "",
    )
