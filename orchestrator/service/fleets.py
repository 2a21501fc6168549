"""Which fleets there are for whom: nobody hears of one where they have no role."""

from collections.abc import Collection

from activities.files import FleetFiles
from orchestrator.service.caller_refusals import CallerRefusals
from orchestrator.store.ledger import Ledger
from policies.access import Action, is_known_to, may, refusal_of
from policies.model.change import ChangeRecord
from policies.model.errors import BadInput, NotAllowed, PenstockError, Unknown
from policies.model.fleet import Fleet
from policies.model.offer import Offer, Verb
from policies.model.people import EVERY_FLEET, Caller
from policies.planning.naming import named

FRESH = frozenset({Action.PLAN, Action.START})
"""What is done with a fleet as its file describes it at this moment, however long it takes to read."""


class Fleets:
    """The fleets of one installation, as each caller may know of them."""

    def __init__(self, files: FleetFiles, refusals: CallerRefusals) -> None:
        """Read from these files; `refusals` are written down with their callers and reasons."""
        self._files = files
        self._refusals = refusals

    def read(self) -> None:
        """Have every file read."""
        self._files.all()

    def names(self, caller: Caller) -> tuple[str, ...]:
        """Return the fleets where the caller has a role, by name."""
        return tuple(sorted(name for name in self._files.names() if is_known_to(caller, name)))

    def where(self, caller: Caller, action: Action) -> tuple[str, ...]:
        """Return the fleets where the caller may do that, by name; it need not know of them otherwise."""
        return tuple(sorted(name for name in self._files.lately()[0] if may(caller, action, name)))

    def of(self, caller: Caller) -> tuple[Fleet, ...]:
        """Return the fleets where the caller has a role."""
        return tuple(fleet for name, fleet in self._files.lately()[0].items() if is_known_to(caller, name))

    def faults(self, caller: Caller, known: Collection[str]) -> dict[str, str]:
        """Return what is wrong with the files of the caller's other fleets, by name; `known` are well."""
        found = {}
        for name in self.names(caller):
            if name in known:
                continue
            try:
                self.for_action(caller, Action.READ, name)
            except BadInput as wrong:
                found[name] = str(wrong)
            except PenstockError:
                continue  # the caller may not look at it, or it was removed meanwhile
        return found

    def names_of_product(self, product: str) -> tuple[str, ...]:
        """Return every fleet, whoever may know of it, whose gateways run that product."""
        return tuple(
            name for name, fleet in sorted(self._files.lately()[0].items()) if fleet.product == product
        )

    def for_action(self, caller: Caller, action: Action, name: str) -> Fleet:
        """Return the fleet, once it is clear that the caller may do that there.

        Raises:
            Unknown: There is no such fleet, as far as the caller may know.
            NotAllowed: The caller knows the fleet, and may not do that there.
            BadInput: A file is wrong, and may be that of this fleet.
        """
        files = self._files
        known, wrong = (files.all(), files.wrong()) if action in FRESH else files.lately()
        found = known.get(name)
        if found is None and not wrong:
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
            self._refusals.note(caller, name, name, {"why": refusal})
            raise NotAllowed(refusal)

    def _unknown(self, caller: Caller, name: str) -> Unknown:
        known = named(self.names(caller)) or "none that you may see"
        why = {"why": "there is no such fleet for this caller"}  # others read that record
        self._refusals.note(caller, name, name, why)
        return Unknown(f"there is no fleet {name}; there is {known}")

    def stopped(self, caller: Caller, action: Action, name: str) -> Fleet | None:
        """Return the fleet for what goes in the safe direction: None when no file describes it any more.

        Raises:
            Unknown: The caller has no role there, and does not hear whether there is such a fleet.
            NotAllowed: The caller has another role there.
        """
        self.require(caller, action, name)
        return self._files.known().get(name)

    def described(self, name: str) -> Fleet | None:
        """Return the fleet as its file described it lately, None without one."""
        return self._files.lately()[0].get(name)

    def named(self, name: str) -> Fleet:
        """Return the fleet of that name, for whoever needs no role there.

        Raises:
            Unknown: There is none.
        """
        found = self._files.lately()[0].get(name)
        if found is None:
            raise Unknown(f"there is no fleet {name}")
        return found


def record_for(ledger: Ledger, fleets: Fleets, caller: Caller, action: Action, change: str) -> ChangeRecord:
    """Return a change's line, once it is clear that the caller may do that with changes of its fleet.

    Of a fleet that the caller may not know it is as if there were no such change.

    Raises:
        Unknown: There is none, as far as the caller may know.
        NotAllowed: The caller knows the fleet, and may not do that there.
    """
    record = ledger.change(change)
    try:  # a change is remembered longer than its fleet has a file
        fleets.require(caller, action, record.fleet)
    except Unknown as unknown:
        raise Unknown(f"no change {change} in the ledger", Offer(verb=Verb.HISTORY)) from unknown
    return record
