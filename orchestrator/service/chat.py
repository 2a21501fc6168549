"""Chat: what people say in rooms of a chat is read, asked and answered here, each message once.

The process that listens to a chat hands on what was said and shows the answers, and may do nothing else:
who somebody is, what they may do and what a code confirms is found out here.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from activities.files import FleetFiles
from orchestrator.refusals import Refusals
from orchestrator.service.acting import Acting
from orchestrator.service.chat_cards import ChatCards
from orchestrator.service.chat_links import ChatLinks
from orchestrator.service.chat_sessions import LOOKED_WITHIN_SECONDS, ChatSessions
from orchestrator.service.patience import recognised
from orchestrator.store.chat import Code
from orchestrator.store.ledger import Ledger
from orchestrator.words.standing import (
    before_line,
    change_notices,
    fleet_notices,
    missing_lines,
    stored_lines,
)
from policies.access import Action, may
from policies.chat.codes import ALPHABET, LENGTH, LIVES, state_of
from policies.chat.grammar import CALLED, CHANGES, HELP, SAFE, Said, addressed, is_safe, read
from policies.chat.sessions import stay
from policies.chat.spelling import spelled
from policies.model.chat import ChatAnswer, ChatCard, ChatMessage, ChatPeople, ChatVerb
from policies.model.command import CommandKind
from policies.model.errors import Conflict, NotAllowed, PenstockError, Refused, Unavailable
from policies.model.fleet import Fleet
from policies.model.people import Caller, Via
from policies.model.request import Answer
from policies.model.status import ChangeStatus
from policies.model.value import Digest
from policies.model.way_back import RollbackAsked

if TYPE_CHECKING:
    from orchestrator.service.service import FleetStatus, Service

OLD = timedelta(minutes=5)
"""A message that comes later than so long after it was sent is no order any more."""

KINDS = {
    ChatVerb.ROLL_BACK: CommandKind.ROLL_BACK,
    ChatVerb.ABORT: CommandKind.ABORT,
    ChatVerb.APPROVE: CommandKind.APPROVE,
}
"""What a code confirms."""

UNSAID = "said in a chat without a reason"
SHOWN_ROWS = 5


MESSAGES = "chat messages"
"""Has the requests of all messages, whichever token hands them on: no person or token can have this name."""


class ChatService:
    """What is said in chats, answered.

    Orders that stop or go back use threads and connections of their own, from the message to the engine.
    """

    def __init__(
        self,
        service: "Service",
        ledger: Ledger,
        fleets: FleetFiles,
        links: ChatLinks,
        acts: Acting,
        sessions: ChatSessions,
        strangers: Refusals,
    ) -> None:
        self._service = service
        self._safe = acts.safe_ledger
        self._fleets = fleets
        self._links = links
        self._acts = acts
        self._sessions = sessions
        self._strangers = strangers
        self.cards = ChatCards(ledger, fleets, sessions)

    async def cards_wanted(self, process: Caller, workspace: str) -> tuple[ChatCard, ...]:
        """Return the cards of a workspace that do not show yet how their changes stand.

        The engine alone knows which commands are stored for changes that are under way.
        """
        fleets = await asyncio.to_thread(self.cards.under_way, process)
        found = await asyncio.gather(*map(self._service.stored, fleets))
        stored = dict(zip(fleets, found, strict=True))
        return await asyncio.to_thread(self.cards.wanted, process, workspace, stored)

    async def people(self, process: Caller, workspace: str) -> ChatPeople:
        """Return which accounts of a workspace are linked now, and to whom.

        Raises:
            NotAllowed: Whoever asks is no process of a chat.
        """
        await self._require_chat(process)
        return ChatPeople(people=await recognised(partial(self._links.linked, workspace)))

    async def answer(self, process: Caller, said: ChatMessage) -> ChatAnswer:
        """Do what a message orders, once however often it comes, and return what is to be said to it.

        A refusal is an answer, too: it is written down, and says what makes sense next.

        Raises:
            NotAllowed: Whoever asks is no process of a chat.
            OtherContent: The message came before with other words.
            Conflict: The same message is being answered at this moment.
            Unavailable: The ledger does not answer; the same message may come again.
        """
        await self._require_chat(process)
        key = key_of(said)
        try:
            who: Caller | NotAllowed = await recognised(partial(self._links.who, said.workspace, said.user))
        except NotAllowed as stranger:
            # No row for each message: an account costs nothing, and what it orders is refused however often.
            return await self._answer(process, said, stranger, key)
        everybody = process.model_copy(update={"person": MESSAGES})
        done: list[bool] = []

        async def work() -> Answer:
            done.append(True)
            answer = await self._answer(process, said, who, key)
            return Answer(status=200, body=answer.model_dump_json())

        content = said.model_dump_json(exclude={"name", "at"}).encode()
        found = await self._acts.once(everybody, key, content, work, safe=is_safe(said), alone=True)
        return ChatAnswer.model_validate_json(found.body).model_copy(update={"repeated": not done})

    async def _require_chat(self, process: Caller) -> None:
        if not is_chat(process):
            raise await self._acts.refuse(
                process,
                None,
                f"{process.person} may not speak for others in chats: that takes a token of the role chat",
            )

    async def _answer(
        self, process: Caller, said: ChatMessage, who: Caller | NotAllowed, key: str
    ) -> ChatAnswer:
        """Do what a message orders for its person; refuse the orders of an account that is nobody."""
        caller = who if isinstance(who, Caller) else None
        try:
            if abs(datetime.now(UTC) - said.at) > OLD:
                raise Refused("this was sent more than five minutes ago; say it again if it is still meant")
            order = await recognised(partial(self._read, process, said))
            if order.verb is ChatVerb.LINK:
                return await self._link(said)
            if order.verb is ChatVerb.HELP:
                return ChatAnswer(lines=HELP)
            if isinstance(who, NotAllowed):
                raise who
            if said.direct and order.verb in CHANGES:
                raise Refused(
                    "a direct message only asks; say that in a room of the fleet, where others see it"
                )
            return await self._do(who, said, order, key)
        except Unavailable:
            raise
        except PenstockError as refused:
            return await self._refused(caller, said, refused)

    def _read(self, process: Caller, said: ChatMessage) -> Said:
        """Return what is meant; a fleet is only known in its own rooms."""
        known = self._fleets.lately()[0]
        everywhere = {name: one for name, one in known.items() if may(process, Action.CHAT, name)}
        here = sorted(everywhere if said.direct else self._spoken_of(everywhere, said))
        pressed = said.action
        if pressed is not None:
            if pressed.fleet not in here:
                raise Refused(f"{pressed.fleet} is not spoken of in this room; its file names its rooms")
            return Said(verb=pressed.verb, fleet=pressed.fleet, hold_of=pressed.hold_of)
        return read(addressed(said.text) or "", here, sorted({*everywhere} - {*here}))

    @staticmethod
    def _spoken_of(known: Mapping[str, Fleet], said: ChatMessage) -> list[str]:
        place = (said.workspace, said.channel)
        return [
            name
            for name, one in known.items()
            if one.chat is not None
            and place in {(room.workspace, room.channel) for room in one.chat.channels}
        ]

    async def _link(self, said: ChatMessage) -> ChatAnswer:
        place = await asyncio.to_thread(self._links.offer, said)
        return ChatAnswer(
            lines=(
                "Open this within ten minutes, logged in as yourself; it links nothing until you say yes:",
                place,
            ),
            private=True,
        )

    async def _refused(self, caller: Caller | None, said: ChatMessage, refused: PenstockError) -> ChatAnswer:
        """Count the refusal of an account that is not linked, record any other; return what is answered."""
        account, why = f"{said.workspace}/{said.user}", str(refused)
        if caller is None:
            self._strangers.note(Via.CHAT, "message refused", account, why)
        else:
            body = {"why": why, "channel": said.channel, "said": said.text[:200]}
            await self._acts.refusals.noted(caller, None, account, body)
        who = caller.person if caller is not None else said.name or said.user
        offers = [line for one in refused.offers if (line := spelled(one)) is not None]
        lines = (f"{who}: {refused}", *(f"Instead: {line}" for line in offers[:3]))
        return ChatAnswer(lines=lines, refused=refused.code)

    async def _do(self, caller: Caller, said: ChatMessage, order: Said, key: str) -> ChatAnswer:
        match order.verb:
            case ChatVerb.STATUS | ChatVerb.WHY | ChatVerb.HISTORY | ChatVerb.SESSIONS | ChatVerb.DRAINS:
                return ChatAnswer(lines=await self._asked(caller, order))
            case ChatVerb.HOLD | ChatVerb.RESUME:
                return await self._command(caller, said, order, key)
            case ChatVerb.ROLL_BACK | ChatVerb.ABORT:
                return await self._announce(caller, said, order)
            case ChatVerb.CONFIRM:
                return await self._confirm(caller, said, order, key)
            case _:
                return await self._vote(caller, said, order, key)

    # --- questions ---------------------------------------------------------------------

    async def _asked(  # noqa: PLR0911 - an answer a question
        self, caller: Caller, order: Said
    ) -> tuple[str, ...]:
        fleet = str(order.fleet)
        if order.verb is ChatVerb.HISTORY:
            rows = await self._service.history(caller, fleet, SHOWN_ROWS)
            return tuple(
                f"{row.name}: {row.kind.value.replace('_', ' ')} {row.release}, {row.sentence}"
                for row in rows
            ) or (f"{fleet} has no change yet.",)
        if order.verb is ChatVerb.DRAINS:
            drains = await self._service.drains(caller, fleet)
            slots = [(one.rollout, slot) for one in drains.drains for slot in one.slots]
            lines = [
                f"{change}: {slot.gateway} {slot.slot}, "
                f"{slot.sessions if slot.sessions is not None else 'an unknown number of'} sessions"
                for change, slot in slots[:SHOWN_ROWS]
            ]
            more = [f"{len(slots) - SHOWN_ROWS} more."] if len(slots) > SHOWN_ROWS else []
            if lines and drains.as_of is not None:
                more.append(f"Sessions as of {drains.as_of:%H:%M:%S} UTC.")
            return (*lines, *more) or (f"Nothing drains in {fleet}.",)
        if order.verb is ChatVerb.SESSIONS:
            found = await self._service.traffic(caller, fleet)
            if found.unknown:
                return (f"How many sessions there are is not known: {found.unknown}",)
            lines = [f"{one.version}: {one.sessions} sessions" for one in found.releases[:SHOWN_ROWS]]
            return (*lines, f"{found.seen} of {found.gateways} gateways were counted.")
        status = await self._service.status(caller, fleet)
        change = status.change
        if change is None:
            return (
                *_notices(status),
                f"{fleet}: no change yet, {status.standing.taking} gateways take users.",
            )
        can = [line for offer in status.offers if (line := spelled(offer)) is not None]
        you_can = f"You can: {' | '.join(can) or CALLED + ' history ' + fleet}"
        if status.unbegun is not None:
            return (*_notices(status), before_line(change.model_dump(mode="json")), you_can)
        if order.verb is ChatVerb.WHY:
            decision = change.decision
            decided = (
                (f"Decided: {decision.action.value}, {decision.reason}",) if decision is not None else ()
            )
            return (f"{change.rollout}: {change.what}", f"Why: {change.why}", *decided)
        return (
            *_notices(status),
            f"{change.rollout}: {change.what}",
            f"Users: {change.users}",
            f"Why: {change.why}",
            f"Next: {change.next}",
            you_can,
        )

    # --- orders ------------------------------------------------------------------------

    async def _command(self, caller: Caller, said: ChatMessage, order: Said, key: str) -> ChatAnswer:
        """Hold, or lift a hold, at once; a button whose card is old is told what was done already."""
        fleet = str(order.fleet)
        shown = said.action.change if said.action is not None else None
        if order.verb is ChatVerb.HOLD and shown is not None:
            await self._require_not_done(fleet, shown)
        receipt = await self._service.command(
            caller,
            fleet,
            CommandKind(order.verb.value),
            order.reason or UNSAID,
            key=key,
            hold_of=order.hold_of,
            change=shown,
        )
        return self._done(caller, receipt.accepted, receipt.sentence, order.verb)

    async def _announce(self, caller: Caller, said: ChatMessage, order: Said) -> ChatAnswer:
        """Say what an order will do, and ask for a code that only whoever gave it can use."""
        fleet = str(order.fleet)
        await self._service.require_command(caller, KINDS[order.verb], fleet)
        if said.action is not None and said.action.change is not None:
            await self._require_not_done(fleet, said.action.change)
        return await self._offer(
            caller, order.verb, fleet, order.reason or UNSAID, (said.workspace, said.channel)
        )

    async def _offer(
        self, caller: Caller, verb: ChatVerb, fleet: str, reason: str, room: tuple[str, str], lead: str = ""
    ) -> ChatAnswer:
        """Return what an order will do now, and the code that confirms exactly that."""
        change = await self._change(fleet)
        if change is not None and change.phase.value == "rolling_back":
            raise Conflict(f"{change.rollout} goes back already: {change.why}")
        try:
            what, shown = await self._effect(caller, verb, fleet, change)
        except (Conflict, Refused) as nothing:
            kind = Refused if isinstance(nothing, Refused) else Conflict
            raise kind(" ".join(filter(None, (lead, str(nothing)))), *nothing.offers) from nothing
        written = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
        code = Code(
            person=caller.person,
            fleet=fleet,
            verb=verb.value,
            state=shown or state_of(verb, change),
            change=change.rollout if change is not None else None,
            reason=reason,
            workspace=room[0],
            channel=room[1],
            expires=datetime.now(UTC) + LIVES,
        )
        await self._acts.audited(
            caller,
            f"code for {verb} asked for",
            fleet,
            {"reason": code.reason},
            partial(self._keep, written, code),
            safe=verb in SAFE,
        )
        until = f"To confirm: {CALLED} confirm {written} (2 minutes, only you)."
        return ChatAnswer(lines=(*filter(None, (lead,)), what, until))

    async def _keep(self, written: str, code: Code) -> None:
        await self._acts.patience.ask(partial(self._safe.keep_code, written, code))

    async def _change(self, fleet: str) -> ChangeStatus | None:
        """Return how the newest change stands; None where there is none, or the ledger does not answer."""
        with suppress(Unavailable):
            return await self._service.change_to_stop(fleet)
        return None

    async def _effect(
        self, caller: Caller, verb: ChatVerb, fleet: str, change: ChangeStatus | None
    ) -> tuple[str, Digest | None]:
        """Return what an order will do, and the digest of that where the ledger knows which releases serve.

        Raises:
            Conflict: A rollback has nothing to do, or nothing waits for an approval.
            Refused: The ledger cannot say what a rollback goes back to.
        """
        if verb is ChatVerb.ABORT:
            return f"Aborting what goes on in {fleet}: no session has moved yet, and none will.", None
        if verb is ChatVerb.APPROVE:
            waiting = _waiting_for_answer(fleet, change)
            return f"Approving {waiting.rollout}: {waiting.why}; {waiting.users}.", waiting.confirm
        shown: Digest | None = None
        try:
            preview = await self._service.rollback_preview(caller, fleet, RollbackAsked())
        except Unavailable as unavailable:
            serves = f"which release each gateway will serve is not known ({unavailable})"
        else:
            if not preview.does:
                raise Conflict(f"nothing to do: {preview.sentence}")
            serves, shown = preview.sentence, preview.digest
        described = self._fleets.lately()[0].get(fleet)
        left, deadline = None, timedelta(0)
        if described is not None and change is not None:
            with suppress(TimeoutError, Unavailable):  # the order says no less without their number
                async with asyncio.timeout(LOOKED_WITHIN_SECONDS):
                    newest = await self._acts.patience.ask(partial(self._safe.last_change, fleet))
                    if newest is not None:
                        left, deadline = await self._sessions.now(described, newest)
        what = (
            f"Rolling back {fleet}: {serves}. New sessions go there within seconds; "
            f"{stay(left, deadline, datetime.now(UTC))} Nobody is cut now."
        )
        return what, shown

    async def _confirm(self, caller: Caller, said: ChatMessage, order: Said, key: str) -> ChatAnswer:
        """Carry out what the caller has asked for, if the code is theirs and nothing has moved since."""
        place = (said.workspace, said.channel)
        ask = self._acts.patience.ask
        code = await ask(partial(self._safe.use_code, caller.person, *place, order.code, key))
        if code is None:
            other = await ask(partial(self._safe.whose_code, *place, order.code))
            if other is not None and other.person != caller.person:
                own = f"{CALLED} {other.verb} {other.fleet}"
                raise NotAllowed(f"only {other.person} can confirm this. To start your own: {own}")
            raise Refused(
                "that code is none of yours that is still good (one use, 2 minutes); ask for a new one"
            )
        verb, has_begun = ChatVerb(code.verb), await self._has_begun(caller, key)
        change = await self._change(code.fleet)
        if not has_begun and not await self._is_as_shown(caller, code, change):
            what = change.what if change is not None else "no change"
            moved_on = f"{code.fleet} has moved on since: {what}."
            if verb is not ChatVerb.ROLL_BACK:
                raise Conflict(f"{moved_on} If it is still meant: {CALLED} {code.verb} {code.fleet}")
            return await self._offer(
                caller, verb, code.fleet, code.reason, place, f"Nothing is done yet: {moved_on}"
            )
        if verb is ChatVerb.ROLL_BACK:
            by_state = code.state == state_of(code.verb, change)
            shown = None if by_state else code.state
            receipt = await self._service.roll_back(
                caller, code.fleet, code.reason, change=code.change, shown=shown, key=key
            )
        else:
            receipt = await self._service.command(
                caller,
                code.fleet,
                KINDS[verb],
                code.reason,
                key=key,
                approves=code.state if verb is ChatVerb.APPROVE else None,
                change=code.change,
            )
        if receipt.accepted:
            lead = "Ordered" if receipt.stored or receipt.change is None else "Started"
            lines = (f"{lead} {datetime.now(UTC):%H:%M:%S} UTC by {caller.person}. {receipt.sentence}",)
            return ChatAnswer(lines=lines, begun=code.verb)
        return self._done(caller, receipt.accepted, receipt.sentence, ChatVerb(code.verb))

    async def _is_as_shown(self, caller: Caller, code: Code, change: ChangeStatus | None) -> bool:
        """Return whether an order does what was shown with its code; a rollback waits for no ledger."""
        if code.state == state_of(code.verb, change):
            return True
        if code.verb == ChatVerb.APPROVE:
            return change is not None and change.confirm == code.state
        if code.verb == ChatVerb.ROLL_BACK:
            try:
                preview = await self._service.rollback_preview(caller, code.fleet, RollbackAsked())
            except Unavailable:
                return True
            except Refused:  # the next answer says why
                return False
            return preview.digest == code.state
        return False

    async def _has_begun(self, caller: Caller, key: str) -> bool:
        """Return whether this very message has begun the change already, before somebody was killed."""
        with suppress(Unavailable):  # the engine knows the key, too
            find = partial(self._safe.change_of_key, caller.request(key))
            return await self._acts.patience.ask(find) is not None
        return False

    async def _vote(self, caller: Caller, said: ChatMessage, order: Said, key: str) -> ChatAnswer:
        """Approve or reject, where the fleet's file lets people do so in a chat.

        An approval is for what was shown: the card whose button was pressed, or the answer with its code.
        """
        fleet = str(order.fleet)
        described = self._fleets.lately()[0].get(fleet)
        if described is None or described.chat is None or not described.chat.approvals:
            raise await self._acts.refuse(
                caller,
                fleet,
                f"{fleet} takes no approvals in chats (chat.approvals in its file); approve at the page, or: "
                f"penstock {order.verb} {fleet} --reason TEXT",
            )
        if order.plan is not None:
            plan = await self._service.planned(caller, order.plan)
            if plan.fleet != fleet:
                raise Conflict(f"{order.plan} is a plan of {plan.fleet}, not of {fleet}")
            given = await self._service.approve_plan(caller, plan.digest, order.reason or UNSAID)
            until = f"{given.expires_at:%Y-%m-%d %H:%M} UTC"
            return ChatAnswer(lines=(f"APPROVED by {given.person} until {until}.",), begun=order.verb)
        pressed = said.action.change if said.action is not None else None
        if order.verb is ChatVerb.APPROVE and pressed is None:
            return await self._announce(caller, said, order)
        waiting = _waiting_for_answer(fleet, (await self._service.status(caller, fleet)).change)
        receipt = await self._service.command(
            caller,
            fleet,
            CommandKind(order.verb.value),
            order.reason or UNSAID,
            key=key,
            approves=waiting.confirm if order.verb is ChatVerb.APPROVE else None,
            change=pressed or waiting.rollout,
        )
        return self._done(caller, receipt.accepted, receipt.sentence, order.verb)

    async def _require_not_done(self, fleet: str, shown: str) -> None:
        """Refuse a button of a card that is old: its change is over, or goes back already."""
        change = await self._change(fleet)
        if change is None or change.rollout != shown:
            return  # the order itself says which change is the newest
        if change.outcome is not None or change.phase.value == "rolling_back":
            raise Conflict(f"{shown}: already done. {change.what}; {change.why}")

    @staticmethod
    def _done(caller: Caller, accepted: bool, sentence: str, verb: ChatVerb) -> ChatAnswer:
        said = sentence if accepted else f"Nothing was done: {sentence}"
        return ChatAnswer(lines=(f"{caller.person}: {said}",), begun=verb if accepted else None)


def _waiting_for_answer(fleet: str, change: ChangeStatus | None) -> ChangeStatus:
    """Return the rollback that waits for a second person.

    Raises:
        Conflict: None does.
    """
    if change is None or change.confirm is None:
        raise Conflict(f"nothing waits for an answer in {fleet}")
    return change


def _notices(status: "FleetStatus") -> tuple[str, ...]:
    """Return what a fleet needs an operator for, as the terminal and the page show it."""
    shown = status.model_dump(mode="json")
    of_change = change_notices(shown["change"]) if shown["change"] else []
    lines = (*fleet_notices(shown), *of_change, *stored_lines(shown), *missing_lines(shown))
    return tuple(f"{label}: {line}" for label, line in lines)


def is_chat(caller: Caller) -> bool:
    """Return whether this is a process of a chat, which may hand on what others say."""
    return caller.machine and any(may(caller, Action.CHAT, name) for name in caller.grants)


def key_of(said: ChatMessage) -> str:
    """Return how a message is known again, in the ledger and in the engine."""
    return f"chat-{hashlib.sha256(f'{said.workspace} {said.message}'.encode()).hexdigest()[:32]}"
