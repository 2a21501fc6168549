"""Notices, as everybody may ask for them: what was sent, what waits, and what the chat has not had yet."""

import asyncio
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from activities.drivers.notices.port import Undelivered
from orchestrator.noticing.rules import RulesFile
from orchestrator.service.acting import Acting
from orchestrator.service.caller_refusals import INSTALLATION
from orchestrator.service.fleets import Fleets
from orchestrator.store.addressed import Addressed
from orchestrator.store.ledger import Ledger
from orchestrator.store.notices import no_notice
from orchestrator.store.outbox import SinkHealth
from orchestrator.store.sink_checks import TAKEN_WITHIN
from policies.access import Action, is_known_to, may, may_there
from policies.model.errors import BadInput, Unavailable, Unknown
from policies.model.notice import Delivery, Notice, NoticeLevel, NoticeRow, Occasion
from policies.model.offer import Offer, Verb
from policies.model.people import EVERY_FLEET, Caller
from policies.notices.states import NoticeState

_MENDING = (Action.DRILL, Action.ADMINISTER, Action.READ_AUDIT)
"""Who may do one of these on a fleet hears why a sink did not take what it was told."""

TEST_SECONDS = 58.0
"""How long a test is waited for: a worker gives a receiver up after 17 s, and what settles it after 34."""

ASK_AGAIN_SECONDS = 0.2

_HIDDEN = "it failed; operators and administrators see why"


@dataclass(frozen=True)
class NoticeService:
    """Shows and hands over notices; of fleets where the caller has no role nobody hears."""

    ledger: Ledger
    fleets: Fleets
    acts: Acting
    rules: RulesFile | None = None
    """Who is told what, None where nobody is."""

    async def rows(self, caller: Caller, limit: int, *, open_only: bool = False) -> tuple[NoticeRow, ...]:
        """Return what was sent and what waits of the fleets that the caller may look at, the newest first."""
        fleets = await self._of(caller, Action.READ)
        rows = await asyncio.to_thread(self.ledger.notice_rows, fleets, limit, open_only=open_only)
        return tuple(
            row
            if _hears_errors(caller, row.notice.fleet)
            else row.model_copy(update={"error": row.error and _HIDDEN})
            for row in rows
        )

    async def sinks(self, caller: Caller) -> Mapping[str, SinkHealth]:
        """Return how every sink takes what it is told; what receivers answered hears only who mends them."""
        fleets = await asyncio.to_thread(self.fleets.names, caller)
        theirs = {one for one in fleets if _hears_errors(caller, one)}
        theirs.update(*(_of_the_installation(caller, action) for action in _MENDING))
        found = await asyncio.to_thread(self.ledger.sink_health, theirs)
        return {
            name: one if one.error or not one.failing + one.given_up else one._replace(error=_HIDDEN)
            for name, one in found.items()
        }

    async def outbox(self, caller: Caller, sink: str, limit: int) -> tuple[Delivery, ...]:
        """Return what this sink has not had yet, the oldest first.

        Raises:
            NotAllowed: The caller is no machine whose token lets it pass notices on.
        """
        fleets = await self._passed_on(caller, sink)
        return await asyncio.to_thread(self.ledger.outbox, sink, limit, fleets)

    async def delivered(self, caller: Caller, sink: str, keys: Collection[str]) -> int:
        """Write down that this sink has these; return how many it had not before.

        Raises:
            NotAllowed: The caller is no machine whose token lets it pass notices on.
        """
        fleets = await self._passed_on(caller, sink)

        def done() -> int:
            return self.ledger.notices_delivered(sink, keys, fleets=fleets)

        return await asyncio.to_thread(done)

    async def acknowledge(self, caller: Caller, key: str) -> NoticeRow:
        """Write down that the caller has it, so that nobody else is woken.

        Raises:
            Unknown: There is no such notice, as far as the caller may know.
            NotAllowed: The caller may not stop changes of its fleet.
        """
        found = await asyncio.to_thread(self.ledger.notice, key)
        if not is_known_to(caller, found.fleet):  # as if there were none; the fleet is not named
            raise no_notice(key)
        await asyncio.to_thread(self.fleets.require, caller, Action.STOP, found.fleet)
        return await asyncio.to_thread(self.ledger.acknowledge_notice, key, caller.person, caller.via)

    async def test(self, caller: Caller, sink: str) -> str:
        """Tell this sink of a test; return what its receiver answered.

        Raises:
            NotAllowed: The caller may rehearse on no fleet.
            BadInput: There is no such sink, or a file of it is not as it must be.
            Undelivered: The receiver did not take it; the sentence says why.
        """
        fleets = await self._of(caller, Action.DRILL)
        if not fleets:
            sentence = f"{caller.person} may not test sinks: that takes operator of a fleet"
            raise await self.acts.refuse(caller, None, sentence)
        if self.rules is None:
            raise Unknown(f"there is no sink {sink}, and no notices.yaml: set PENSTOCK_NOTICES to its path")
        rules, fleet, at = self.rules, fleets[0], datetime.now(UTC)
        notice = Notice(
            key=f"test/{sink}/{secrets.token_hex(8)}",
            fleet=fleet,
            state=NoticeState.TEST.value,
            level=NoticeLevel.NEEDS_YOU,
            headline=f"{caller.person} tests the sink {sink}: nothing has happened",
            sentences=("what a notice of a change looks like here",),
            offers=(Offer(verb=Verb.STATUS, fleet=fleet),),
            at=at,
        )

        async def tell() -> str:
            if not await asyncio.to_thread(rules.is_pushed, sink):
                goes = {sink: (Occasion.SAID, at)}
                kept = [Addressed(notice, notice.key, waits=False, sinks=goes)]
                await asyncio.to_thread(self.ledger.add_notices, kept)
                return "it is kept until the chat process asks for it"
            await asyncio.to_thread(self.ledger.ask_sink_test, sink, notice)
            return await self._answer(notice.key)

        return await self.acts.audited(caller, "sink to be tested", None, {"sink": sink}, tell, about=sink)

    async def _answer(self, key: str) -> str:
        """Wait until a worker, which has the sink's credentials, has told it; return what it answered."""
        asked = asyncio.get_running_loop().time()
        while True:
            found = await asyncio.to_thread(self.ledger.sink_test_answer, key)
            if found.answer is not None and not found.failed:
                return found.answer
            if found.answer is not None:
                raise BadInput(found.answer) if found.failed == "BadInput" else Undelivered(found.answer)
            waited = asyncio.get_running_loop().time() - asked
            if waited > (TEST_SECONDS if found.claimed else TAKEN_WITHIN.total_seconds()):
                raise Unavailable("no worker has told the sink; start penstock worker, and try again")
            await asyncio.sleep(ASK_AGAIN_SECONDS)

    async def _of(self, caller: Caller, action: Action) -> tuple[str, ...]:
        known = await asyncio.to_thread(self.fleets.names, caller)
        found = tuple(name for name in known if may(caller, action, name))
        return (*found, *_of_the_installation(caller, action))

    async def _passed_on(self, caller: Caller, sink: str) -> tuple[str, ...]:
        fleets: tuple[str, ...] = ()
        if caller.machine:
            fleets = await asyncio.to_thread(self.fleets.where, caller, Action.HAND_ON)
            fleets = (*fleets, *_of_the_installation(caller, Action.HAND_ON))
        if not fleets:
            sentence = (
                f"{caller.person} may not hand notices on: that takes a machine's token with the role chat"
            )
            raise await self.acts.refuse(caller, None, sentence)
        if self.rules is not None and sink in await asyncio.to_thread(self.rules.pushed):
            sentence = f"{sink} is told by the worker, and takes nobody's word that it was"
            raise await self.acts.refuse(caller, None, sentence)
        return fleets


def _of_the_installation(caller: Caller, action: Action) -> tuple[str, ...]:
    """Whoever may do this on every fleet hears of what all of them need as well, such as the engine."""
    return (INSTALLATION,) if may_there(caller, action, EVERY_FLEET) else ()


def _hears_errors(caller: Caller, fleet: str) -> bool:
    """Whether the caller may hear what receivers answered: they name hosts, accounts and files of secrets."""
    return any(may(caller, action, fleet) for action in _MENDING)
