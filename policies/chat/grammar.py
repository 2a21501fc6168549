"""Read what somebody says in a chat: the verbs of the command line; one that is misspelt is told by name."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches

from policies.model.chat import ChatMessage, ChatVerb
from policies.model.errors import BadInput
from policies.model.value import Value

CALLED = "!penstock"
"""What a message begins with that is meant for penstock."""

OTHERWISE = {
    "explain": ChatVerb.WHY,
    "roll-back": ChatVerb.ROLL_BACK,
    "roll_back": ChatVerb.ROLL_BACK,
    "yes": ChatVerb.CONFIRM,
}
"""Other words for the same."""

OF_NO_FLEET = frozenset({ChatVerb.CONFIRM, ChatVerb.LINK, ChatVerb.HELP})
CHANGES = frozenset(
    {
        ChatVerb.HOLD,
        ChatVerb.RESUME,
        ChatVerb.ROLL_BACK,
        ChatVerb.ABORT,
        ChatVerb.CONFIRM,
        ChatVerb.APPROVE,
        ChatVerb.REJECT,
    }
)
"""What is no mere question; none of it is taken in a direct message."""

SAFE = frozenset({ChatVerb.HOLD, ChatVerb.ROLL_BACK, ChatVerb.ABORT, ChatVerb.CONFIRM})
"""What stops or goes back: how often others ask keeps nobody from it."""

HOLD_OF, PLAN, REASON = "--hold-of", "--plan", "--reason"
OPTIONS = {HOLD_OF: {ChatVerb.RESUME}, PLAN: {ChatVerb.APPROVE}, REASON: CHANGES}
REFUSED = {"--to": "a chat goes back to known-good alone", "--force": "force takes the command line"}

DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
"""Characters that telephones and desktops write for hyphens: dashes of every length, and the minus."""
QUOTES = "\"'\u201c\u201d\u201e\u2018\u2019"
_HYPHENS = str.maketrans(dict.fromkeys(DASHES, "-"))

HELP = (
    "status, why, history, sessions, drains FLEET: how it stands",
    "hold FLEET REASON: nobody else is moved, at once",
    "resume FLEET [--hold-of PERSON] REASON: lifts a hold",
    "rollback FLEET REASON, abort FLEET REASON: answered with a code; then: confirm CODE",
    "approve FLEET [--plan PLAN] REASON, reject FLEET REASON: where the fleet allows it in chats",
    "link: says how this account becomes you",
)


class Said(Value):
    """One order or question."""

    verb: ChatVerb
    fleet: str | None = None
    reason: str = ""
    code: str = ""
    hold_of: str | None = None
    plan: str | None = None


def addressed(text: str) -> str | None:
    """Return what is said to penstock in this message, None when it is for others."""
    first, rest = _parted(text)
    return rest if first == CALLED else None


def verb_of(said: ChatMessage) -> ChatVerb | None:
    """Return what a message orders or asks for, as `read` reads it; None where it is none of the verbs."""
    if said.action is not None:
        return said.action.verb
    return _known(_parted(addressed(said.text) or "")[0])


def is_safe(said: ChatMessage) -> bool:
    """Return whether a message stops a change or rolls back."""
    return verb_of(said) in SAFE


def read(text: str, fleets: Sequence[str], elsewhere: Collection[str] = ()) -> Said:
    """Return what is meant, in a room where these fleets may be spoken of.

    The fleet may be left out where the room has one; a fleet that is spoken of elsewhere is no reason.

    Raises:
        BadInput: Nothing can be made of it; the sentence says what was probably meant.
    """
    word, arguments = _parted(text)
    verb = _verb(word)
    rest, options = _options(verb, arguments.split())
    if verb is ChatVerb.CONFIRM:
        if len(rest) != 1:
            raise BadInput(f"a code is one word: {CALLED} confirm CODE")
        return Said(verb=verb, code=rest[0].lower())
    if verb in OF_NO_FLEET:
        return Said(verb=verb)
    fleet, said = _fleet(verb, rest, fleets, elsewhere)
    if said and verb not in CHANGES:
        raise BadInput(f'"{" ".join(said)[:40]}" says nothing to {verb}: {CALLED} {verb} {fleet}')
    reason = options.get(REASON, " ".join(said))
    return Said(
        verb=verb,
        fleet=fleet,
        reason=reason,
        hold_of=options.get(HOLD_OF),
        plan=options.get(PLAN),
    )


def _parted(text: str) -> tuple[str, str]:
    """Return the first word in small letters and with hyphens, and the rest; space of any kind parts them."""
    first, *rest = text.split(maxsplit=1) or [""]
    return first.lower().translate(_HYPHENS), rest[0].strip() if rest else ""


def _known(word: str) -> ChatVerb | None:
    if not word:
        return ChatVerb.HELP
    return OTHERWISE.get(word) or (ChatVerb(word) if word in {*ChatVerb} else None)


def _verb(word: str) -> ChatVerb:
    if (known := _known(word)) is not None:
        return known
    close = get_close_matches(word, [*ChatVerb, *OTHERWISE], 1, 0.6)
    meant = f"did you mean {CALLED} {close[0]}?" if close else f"{CALLED} help says what there is"
    raise BadInput(f'"{word[:40]}" is nothing that can be said here; {meant}')


def _options(verb: ChatVerb, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the words without their options; what follows --reason is the reason, to the end."""
    rest, found, left = list[str](), dict[str, str](), list(words)
    while left:
        word = _with_hyphens(left.pop(0))
        if word in REFUSED:
            raise BadInput(f"{word} cannot be said here: {REFUSED[word]}")
        if not word.startswith("--") or not word.strip("-"):  # a dash by itself is punctuation
            rest.append(word)
            continue
        if verb not in OPTIONS.get(word, ()):
            raise BadInput(f'"{word[:40]}" is nothing that {verb} takes; {CALLED} help says what there is')
        if not left:
            raise BadInput(f"{word} names nothing; say what")
        if word == REASON:
            found[word], left = " ".join(left).strip(QUOTES), []
        else:
            found[word] = left.pop(0)
    return rest, found


def _with_hyphens(word: str) -> str:
    """Return the option that was typed, also where its hyphens became a dash; any other word as it is.

    Raises:
        BadInput: The word begins with a dash and is no option: it may be one that is misspelt.
    """
    option = f"--{word.translate(_HYPHENS).lstrip('-')}"
    if word.startswith(("-", *DASHES)) and (option in OPTIONS or option in REFUSED):
        return option
    if word.startswith(tuple(DASHES)) and word.translate(_HYPHENS).strip("-"):
        raise BadInput(
            f'"{word[:40]}" begins with a dash and is no option; type two hyphens before an option '
            f"({', '.join(OPTIONS)}), and put a reason that has such a dash after {REASON}"
        )
    return word


def _fleet(
    verb: ChatVerb, words: Sequence[str], fleets: Sequence[str], elsewhere: Collection[str]
) -> tuple[str, list[str]]:
    """Return the fleet that is meant, and what is said beside it."""
    if words and words[0] in fleets:
        return words[0], list(words[1:])
    if words and words[0] in elsewhere:
        raise BadInput(f"{words[0]} is not spoken of in this room; its file names its rooms, chat.channels")
    close = get_close_matches(words[0].lower(), fleets, 1, 0.75) if words else []
    if close:
        raise BadInput(f'there is no fleet "{words[0][:63]}" here; did you mean {CALLED} {verb} {close[0]}?')
    if len(fleets) == 1 and (verb in CHANGES or not words):
        return fleets[0], list(words)
    if words and (len(fleets) != 1 or verb not in CHANGES):
        here = ", ".join(fleets[:5]) or "none"
        raise BadInput(f'there is no fleet "{words[0][:63]}" that this room may speak of; there is {here}')
    if not fleets:
        raise BadInput(
            "no fleet may be spoken of in this room; its file names the rooms, under chat.channels"
        )
    raise BadInput(f"say which fleet: {CALLED} {verb} {fleets[0]} (or {', '.join(fleets[1:5])})")
