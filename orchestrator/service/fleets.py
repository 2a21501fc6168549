"""Which fleets there are: one file, or a folder of files, each read anew when it changes."""

from collections.abc import Callable
from pathlib import Path

from activities.files import Reread
from policies.access import Action, is_known_to, refusal_of
from policies.model.errors import BadInput, NotAllowed, Unknown
from policies.model.fleet import Fleet
from policies.model.people import Caller


class Fleets:
    """The fleets of one installation, by name; nobody hears of one where they have no role."""

    def __init__(self, path: Path, refused: Callable[[Caller, str, str], None]) -> None:
        """Read from a file or a folder; `refused` is told who was refused what, and why."""
        self._path = path
        self._refused = refused
        self._files: dict[Path, Reread[Fleet]] = {}

    def names(self, caller: Caller) -> tuple[str, ...]:
        """Return the fleets where the caller has a role, by name."""
        return tuple(sorted(name for name in self._all() if is_known_to(caller, name)))

    def for_action(self, caller: Caller, action: Action, name: str) -> Fleet:
        """Return the fleet, once it is clear that the caller may do that there.

        Raises:
            Unknown: There is no such fleet, as far as the caller may know.
            NotAllowed: The caller knows the fleet, and may not do that there.
        """
        found = self._all()
        if name not in found or not is_known_to(caller, name):
            known = ", ".join(self.names(caller)) or "none that you may see"
            sentence = f"there is no fleet {name}; there is {known}"
            self._refused(caller, name, sentence)
            raise Unknown(sentence)
        if refusal := refusal_of(caller, action, name):
            self._refused(caller, name, refusal)
            raise NotAllowed(refusal)
        return found[name]

    def named(self, name: str) -> Fleet:
        """Return the fleet of that name, for whoever needs no role there.

        Raises:
            Unknown: There is none.
        """
        found = self._all().get(name)
        if found is None:
            raise Unknown(f"there is no fleet {name}")
        return found

    def _all(self) -> dict[str, Fleet]:
        """Return every fleet by name.

        Raises:
            BadInput: A file is wrong, or two describe a fleet of one name.
        """
        files = sorted(self._path.glob("*.yaml")) if self._path.is_dir() else [self._path]
        found: dict[str, Fleet] = {}
        places: dict[str, Path] = {}
        for file in files:
            fleet = self._files.setdefault(file, Reread(file, Fleet)).value()
            if fleet.name in found:
                raise BadInput(f"{file} and {places[fleet.name]} both describe the fleet {fleet.name}")
            found[fleet.name], places[fleet.name] = fleet, file
        return found
