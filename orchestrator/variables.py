"""The `PENSTOCK_` variables of an environment: one that nobody reads is a misspelt one, and is named."""

import difflib
from collections.abc import Iterable, Iterator

PREFIX = "PENSTOCK_"
BESIDE = {
    "PENSTOCK_STATE": "folder of what this installation must not lose; else `.state` beside its environment",
    "PENSTOCK_LOG": "of processes: `json` has each entry of their log be a JSON object in one line",
    "PENSTOCK_URL": "of commands: the API of another host, like `https://penstock.example:9700`",
    "PENSTOCK_TOKEN": "of commands: a machine's token, as `penstock token create` printed it",
    "PENSTOCK_AUTHORITIES": "of commands: certificates by which that API is known, instead of the system's",
}
"""What is read from the environment and is no setting of the installation's processes, and what it means."""

_ALIKE = 0.9
"""How near to a variable a name has to be that does not begin as they do: PENSTOK_FLEET is meant as one."""


def unread(environment: Iterable[str], settings: Iterable[str] = ()) -> Iterator[str]:
    """Yield a sentence for each name in the environment that looks like a variable of ours and is none.

    `settings` are the variables of whoever asks; those `BESIDE` them are known to everybody.
    """
    known = {*settings, *BESIDE}
    for name in sorted({*environment} - known):
        ours = name.startswith(PREFIX)
        close = _nearest(name.removeprefix(PREFIX), known) if ours else _alike(name, known)
        if ours or close:
            meant = f"did you mean {close}?" if close else "take it out; `man penstock` has those there are"
            own = " (a secret of your own takes a name that begins otherwise)" if ours else ""
            yield f"the environment has {name}, which nobody reads: {meant}{own}"


def _nearest(said: str, known: Iterable[str]) -> str:
    """Return the variable whose own part, after what they all begin with, is nearest to what was said."""
    close = difflib.get_close_matches(said, [name.removeprefix(PREFIX) for name in known], n=1)
    return f"{PREFIX}{close[0]}" if close else ""


def _alike(said: str, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(said, known, n=1, cutoff=_ALIKE)), "")
