"""Which rules that mark packets matter to a condition on a mark.

Many programs mark packets, each by bits or values of its own: nodes of clusters, VPN scripts, limits. A list
of recent addresses (`-m recent`) is as a mark of their packets.
"""

import re
from collections.abc import Sequence

Marked = tuple[str, str]
"""The verdict of a rule that marks packets, and when it does so."""
_NUMBER = r"0x[0-9a-f]+|\d+"
_FIELD = r'\{"(?:meta|ct)": \{"key": "mark"\}\}'
_ASKS = re.compile(
    rf'(?:not \(?)?by mark: (?:(?:ct )?mark|\{{"&": \[{_FIELD}, (?P<mask>\d+)\]\}}) '
    rf'is "?(?P<value>{_NUMBER})(?:/(?P<bits>{_NUMBER}))?"?\)?'
)
_SETS = re.compile(rf".* --set-xmark (?P<value>{_NUMBER})/(?P<bits>{_NUMBER})")
_SETS_BY_NFT = re.compile(rf'.*"value": (?:(?P<value>\d+)|\{{"\|": \[{_FIELD}, (?P<bits>\d+)\]\}})\}}')
_LIST = re.compile(r'--name is "([^"]*)"')
_EVERY_BIT = 0xFFFFFFFF


def mattering(condition: str, marks: Sequence[Marked]) -> Sequence[Marked]:
    """Return the rules that may decide whether packets meet the condition.

    A mark of other bits does not, and none does where no rule sets the value that is asked for.
    """
    marks = [one for one in marks if _list_in(one[0]) == _list_in(condition)]
    asked = _ASKS.fullmatch(condition)
    if asked is None:
        return marks
    value, mask = int(asked["value"], 0), int(asked["mask"] or asked["bits"] or str(_EVERY_BIT), 0)
    read = [(one, *_set_by(one[0])) for one in marks]
    changing = [(one, new, bits) for one, new, bits in read if (new | bits) & mask]
    is_set = any(not (new ^ value) & bits & mask for _, new, bits in changing)
    return [one for one, *_ in changing] if is_set or not value & mask else []


def _list_in(text: str) -> str | None:
    found = _LIST.search(text)
    return found and found[1]


def _set_by(verdict: str) -> tuple[int, int]:
    """Return the bits that a rule changes, and those which surely have the value of the first ones then."""
    if found := _SETS.fullmatch(verdict):
        return int(found["value"], 0), int(found["bits"], 0)
    if found := _SETS_BY_NFT.fullmatch(verdict):
        return int(found["value"] or found["bits"]), int(found["bits"] or _EVERY_BIT)
    return _EVERY_BIT, 0
