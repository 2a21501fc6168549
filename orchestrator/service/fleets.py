"""Which fleets there are for whom: nobody hears of one where they have no role."""

from collections.abc import Callable

from activities.files import FleetFiles
from policies.access import Action, is_known_to, refusal_of
from policies.model.errors import BadInput, NotAllowed, Unknown
from policies.model.fleet import Fleet
from policies.model.people import EVERY_FLEET, Caller


class Fleets:
    """The fleets of one installation, as each caller may know of them."""

    def __init__(self, files: FleetFiles, refused: Callable[[Caller, str, str], None]) -> None:
        """Read from these files; `refused` is told who was refused what, and why."""
        self._files = files
        self._refused = refused

    def names(self, caller: Caller) -> tuple[str, ...]:
        """Return the fleets where the caller has a role, by name."""
        return tuple(sorted(name for name in self._files.all() if is_known_to(caller, name)))

    def of(self, caller: Caller) -> tuple[Fleet, ...]:
        """Return the fleets where the caller has a role."""
        return tuple(fleet for name, fleet in self._files.all().items() if is_known_to(caller, name))

    def names_of_product(self, product: str) -> tuple[str, ...]:
        """Return every fleet, whoever may know of it, whose gateways run that product."""
        return tuple(name for name, fleet in sorted(self._files.all().items()) if fleet.product == product)

    def for_action(self, caller: Caller, action: Action, name: str) -> Fleet:
        """Return the fleet, once it is clear that the caller may do that there.

        Raises:
            Unknown: There is no such fleet, as far as the caller may know.
            NotAllowed: The caller knows the fleet, and may not do that there.
            BadInput: A file is wrong, and may be that of this fleet.
        """
        found = self._files.all().get(name)
        if found is None and not self._files.wrong():
            raise self._unknown(caller, name)
        self.require(caller, action, name)
        if found is None and not is_known_to(caller, EVERY_FLEET):
            raise BadInput(f"the file of {name} is wrong; whoever looks after every fleet sees why")
        return found if found is not None else self._files.fleet(name)

    def require(self, caller: Caller, action: Action, name: str) -> None:
        """Return once it is clear that the caller may do that on a fleet of that name, if there is one.

        Raises:
            Unknown: The caller has no role there, and does not hear whether there is such a fleet.
            NotAllowed: The caller has another role there.
        """
        if not is_known_to(caller, name):
            raise self._unknown(caller, name)
        if refusal := refusal_of(caller, action, name):
            self._refused(caller, name, refusal)
            raise NotAllowed(refusal)

    def _unknown(self, caller: Caller, name: str) -> Unknown:
        known = ", ".join(self.names(caller)) or "none that you may see"
        self._refused(caller, name, "there is no such fleet for this caller")  # others read that record
        return Unknown(f"there is no fleet {name}; there is {known}")

    def named(self, name: str) -> Fleet:
        """Return the fleet of that name, for whoever needs no role there.

        Raises:
            Unknown: There is none.
        """
        found = self._files.all().get(name)
        if found is None:
            raise Unknown(f"there is no fleet {name}")
        return found
