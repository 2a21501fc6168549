"""Refuse to run beside another package that owns the name of one of the four rooms.

The rooms are top-level packages. A foreign distribution with a package of the same name overwrites
files of ours without a word from pip, so the worker and `doctor` look before they trust an import.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

from policies.model.errors import BadInput

ROOMS = ("orchestrator", "workflows", "activities", "policies")
OURS = "penstock"


def refuse_strangers() -> None:
    """Return if the four rooms are ours and lie side by side.

    Raises:
        BadInput: Another distribution owns one of the names, or a room comes from another place.
    """
    refuse_foreign_owners(owners_of_rooms())
    homes = {room: _home(room) for room in ROOMS}
    if len(set(homes.values())) > 1:
        found = ", ".join(f"{room} in {home}" for room, home in homes.items())
        raise BadInput(
            f"the four rooms are not in one place: {found}; install penstock in a fresh environment"
        )


def owners_of_rooms() -> Mapping[str, Sequence[str]]:
    """Return the distributions that have files in each room.

    A worker that was killed is waited for: the library's `packages_distributions` takes 0.3 s here, since it
    parses the name and the files of every distribution.
    """
    owners: dict[str, list[str]] = {room: [] for room in ROOMS}
    for one in distributions():
        files = f"\n{one.read_text('RECORD') or one.read_text('top_level.txt') or ''}\n"
        for room in ROOMS:
            if f"\n{room}/" in files or f"\n{room}\n" in files:
                owners[room].append(one.name)
    return owners


def refuse_foreign_owners(owners: Mapping[str, Sequence[str]]) -> None:
    """Return if no distribution but ours owns a room's name.

    Args:
        owners: Distributions by top-level package, as `owners_of_rooms` has them; an editable
            install names none.

    Raises:
        BadInput: The sentence names the distribution to uninstall.
    """
    for room in ROOMS:
        strangers = sorted(set(owners.get(room, ())) - {OURS})
        if strangers:
            raise BadInput(
                f"the package {room} also belongs to {strangers[0]}, which may have overwritten ours; "
                f"uninstall {strangers[0]} and install penstock in an environment of its own"
            )


def is_for_gateways() -> bool:
    """Return whether this is what a gateway's host has: the agent and the exporter, without the service."""
    return find_spec("orchestrator.service") is None


def _home(room: str) -> Path | None:
    spec = find_spec(room)
    return Path(spec.origin).parent.parent if spec and spec.origin else None
