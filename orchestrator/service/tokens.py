"""Tokens of machines: who administers all fleets that one is good for makes, lists and revokes it."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from orchestrator.service.acting import Acting
from orchestrator.service.people import PeopleFile
from orchestrator.store.ledger import Ledger
from policies.access import Action, may_there
from policies.model.errors import BadInput, Unknown
from policies.model.offer import Offer, Verb
from policies.model.people import EVERY_FLEET, RESERVED, ROOT, Caller, Grants, TokenRow


@dataclass(frozen=True)
class TokenService:
    """What administrators do with the tokens of machines."""

    ledger: Ledger
    people: PeopleFile
    acts: Acting

    async def make(self, caller: Caller, name: str, grants: Grants, lives: timedelta) -> tuple[str, TokenRow]:
        """Make a machine's token, of fleets that the caller administers.

        Raises:
            NotAllowed: The caller does not administer one of them.
            BadInput: The name is or could be a person's.
        """
        for fleet in grants:
            await self._administers(caller, fleet)
        if "@" in name:
            raise BadInput(f"{name} could be what an identity provider calls somebody: leave out the @")
        if name in {*RESERVED, ROOT} or await asyncio.to_thread(self._is_a_persons, name):
            raise BadInput(f"{name} is or could be somebody's name, and a token is nobody: call it otherwise")

        async def make() -> tuple[str, TokenRow]:
            return await asyncio.to_thread(self.ledger.make_token, name, grants, lives, caller.person)

        asked = {"lives": str(lives)}
        return await self.acts.audited(caller, "token asked for", None, asked, make, about=name)

    async def all(self, caller: Caller) -> tuple[TokenRow, ...]:
        """Return the tokens of fleets that the caller administers."""
        rows = await asyncio.to_thread(self.ledger.tokens)
        return tuple(
            row for row in rows if all(may_there(caller, Action.ADMINISTER, fleet) for fleet in row.grants)
        )

    async def revoke(self, caller: Caller, name: str, reason: str) -> bool:
        """Make a token worthless; return whether it was good until now.

        Raises:
            Unknown: There is none of that name for fleets that the caller administers.
        """
        if name not in {row.name for row in await self.all(caller)}:
            raise Unknown(f"there is no token {name}", Offer(verb=Verb.TOKENS))

        async def revoke() -> bool:
            return await asyncio.to_thread(self.ledger.revoke_token, name, caller.person, reason)

        asked = {"reason": reason}
        return await self.acts.audited(caller, "revocation asked for", None, asked, revoke, about=name)

    def _is_a_persons(self, name: str) -> bool:
        """Return whether a person has that name, or had it once: it stays with what that person did."""
        return self.people.knows(name) or any(name == had for _, had in self.ledger.names_since(None))

    async def _administers(self, caller: Caller, fleet: str) -> None:
        if may_there(caller, Action.ADMINISTER, fleet):
            return
        everywhere = fleet == EVERY_FLEET
        sentence = f"{caller.person} may not administer {'every fleet' if everywhere else fleet}"
        raise await self.acts.refuse(caller, None if everywhere else fleet, sentence)
