"""Orders: one sheet for each, which says what will happen and asks why; given once, however often sent.

The sheet of a hold, an abort or a rollback waits a second for what the ledger knows, and is shown without it.
No look of another caller stands before it.
"""

import asyncio
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from orchestrator.api.limits import Kind
from orchestrator.api.once import once
from orchestrator.api.routes.commands import Release
from orchestrator.api.routes.fleets import Fleet
from orchestrator.api.routes.gateways import Told
from orchestrator.api.who import Serving, limits_of
from orchestrator.page.forms import Key, Sent, Typed, reason_in, with_form
from orchestrator.page.render import rendered
from orchestrator.page.session import Ordering, Own
from orchestrator.words.offers import EFFECTS, SETTINGS_BACK, spelled
from policies.access import SAFE_DIRECTION
from policies.model.command import CommandKind, CommandReceipt
from policies.model.errors import Conflict, PenstockError, TooMany, Unavailable, Unknown
from policies.model.offer import Offer, Verb
from policies.model.people import Caller, PersonName
from policies.model.status import ChangeStatus
from policies.model.value import Digest, Name, Value
from policies.model.way_back import RollbackAsked

router = APIRouter()

OF_GATEWAYS = frozenset({Verb.QUARANTINE, Verb.RETURN})

PREVIEWED_WITHIN_SECONDS = 1.0
"""How long a sheet waits for what a rollback does."""

Order = Annotated[Verb, Path(description="what is to be done")]


class Given(Value):
    """What an order names besides its fleet."""

    change: Name | None = None
    """The change that was shown."""
    gateway: Name | None = None
    hold_of: PersonName | None = None
    approves: Digest | None = None
    shown: Digest | None = None
    """The rollback that was shown."""
    to: Release | None = None
    force: bool = False
    settings: bool = False

    @property
    def rollback(self) -> RollbackAsked:
        """What a rollback takes back."""
        return RollbackAsked(to=self.to, settings=self.settings, force=self.force)


@router.get("/fleets/{fleet}/orders/{verb}")
async def sheet(
    request: Request,
    fleet: Fleet,
    verb: Order,
    caller: Ordering,
    service: Serving,
    given: Annotated[Given, Query()],
) -> Response:
    """Say what the order does and to whom, and ask why."""
    limits_of(request).take(caller.person, _shown_as(verb))
    change, (meant, does) = await asyncio.gather(
        _newest(service, caller, fleet, verb), _previewed(service, caller, fleet, verb, given)
    )
    bound = _bound_anew(change, verb, meant)
    meant = bound.model_copy(
        update={"change": given.change or bound.change, "approves": given.approves or bound.approves}
    )
    return _sheet(request, fleet, verb, meant, change, Sent(), does)


def _shown_as(verb: Verb) -> Kind:
    """Return what a sheet counts as: no busy screen keeps its operator from that of a hold."""
    return Kind.SHEET if verb.value in SAFE_DIRECTION else Kind.LOOK


async def _newest(service: Serving, caller: Caller, fleet: str, verb: Verb) -> ChangeStatus | None:
    """Return what the fleet's newest change reports, None without one.

    An order in the safe direction needs no such report: None also where the ledger does not answer soon.
    """
    if verb.value not in SAFE_DIRECTION:
        return (await service.status(caller, fleet)).change
    await service.require_command(caller, CommandKind(verb.value), fleet)
    with suppress(Unavailable):
        return await service.change_to_stop(fleet)
    return None


def _bound_anew(change: ChangeStatus | None, verb: Verb, given: Given) -> Given:
    """Return the order bound to this change as it is now: the operator reads it, and sends the form again."""
    newest = change.rollout if change is not None else None
    return given.model_copy(update={"change": newest, "approves": _bound_to(change, verb)})


async def _previewed(
    service: Serving, caller: Caller, fleet: str, verb: Verb, given: Given
) -> tuple[Given, str | None]:
    """Return the order bound to what is shown of it: which release each gateway will serve after a rollback.

    Where that is not known, the text says why, and the rollback is bound to nothing.
    """
    if verb is not Verb.ROLL_BACK:
        return given, None
    try:
        async with asyncio.timeout(PREVIEWED_WITHIN_SECONDS):
            preview = await service.rollback_preview(caller, fleet, given.rollback)
    except PenstockError as error:
        return given.model_copy(update={"shown": None}), str(error)
    except TimeoutError:
        late = (
            f"Which release each gateway will serve was not found out within {PREVIEWED_WITHIN_SECONDS:.0f} s"
        )
        return given.model_copy(update={"shown": None}), late
    return given.model_copy(update={"shown": preview.digest}), preview.sentence


def _bound_to(change: ChangeStatus | None, verb: Verb) -> Digest | None:
    """Return what an answer, or a vote, is bound to that reads this change."""
    if change is None:
        return None
    return change.ballot if verb is Verb.PROMOTE else change.confirm


@router.post("/fleets/{fleet}/orders/{verb}", dependencies=[Own])
async def give(
    request: Request,
    fleet: Fleet,
    verb: Order,
    caller: Ordering,
    service: Serving,
    given: Annotated[Given, Query()],
    reason: Typed,
    key: Key,
) -> Response:
    """Carry the order out, and say what became of it; a refusal keeps what was written."""

    async def work() -> Value:
        return await _carried_out(service, caller, fleet, verb, given, reason_in(reason), key)

    kind = Kind.SAFE if verb.value in SAFE_DIRECTION else Kind.CHANGE
    said = f"{given.model_dump_json()}\n{reason}".encode()
    try:
        answer = await once(request, caller, key, said, work, kind=kind)
    except PenstockError as error:
        try:
            limits_of(request).take(caller.person, _shown_as(verb))
        except TooMany:
            raise error from None
        change, (now, does) = await asyncio.gather(
            _newest(service, caller, fleet, verb), _previewed(service, caller, fleet, verb, given)
        )
        if isinstance(error, Conflict):
            now = _bound_anew(change, verb, now)
        return _sheet(request, fleet, verb, now, change, Sent(key, {"reason": reason}, error), does)
    told = CommandReceipt if verb not in OF_GATEWAYS else Told
    sentence = told.model_validate_json(answer.body).sentence
    return rendered(request, "given.html", fleet=fleet, verb=verb.value, sentence=sentence)


async def _carried_out(  # who asks whom for what, why, and under which key
    service: Serving, caller: Caller, fleet: str, verb: Verb, given: Given, reason: str, key: str
) -> Value:
    if verb is Verb.ROLL_BACK:
        return await service.roll_back(
            caller,
            fleet,
            reason,
            asked=given.rollback,
            change=given.change,
            shown=given.shown,
            key=key,
        )
    if verb in OF_GATEWAYS:
        gateways = (given.gateway or "",)
        if verb is Verb.QUARANTINE:
            return Told(sentence=await service.leave_out(caller, fleet, gateways, reason))
        return Told(sentence=(await service.take_in(caller, fleet, gateways, reason)).sentence)
    return await service.command(
        caller,
        fleet,
        CommandKind(verb.value),
        reason,
        key=key,
        hold_of=given.hold_of,
        approves=given.approves if verb in {Verb.APPROVE, Verb.PROMOTE} else None,
        change=given.change,
    )


def _sheet(
    request: Request,
    fleet: str,
    verb: Verb,
    given: Given,
    change: ChangeStatus | None,
    sent: Sent,
    does: str | None = None,
) -> Response:
    """Return the sheet of an order.

    Raises:
        Unknown: It is none that is given here.
    """
    if verb.value not in EFFECTS:
        raise Unknown(f"{verb.value} is no order", Offer(verb=Verb.STATUS, fleet=fleet))
    offer = Offer(
        verb=verb,
        fleet=fleet,
        gateway=given.gateway,
        release=given.to,
        hold_of=given.hold_of,
        force=given.force,
        settings=given.settings,
    )
    return with_form(
        request,
        "sheet.html",
        sent,
        fleet=fleet,
        verb=verb.value,
        effect=SETTINGS_BACK if given.settings else EFFECTS[verb.value],
        does=does,
        command=spelled(offer.model_dump(mode="json")),
        fields=given.model_dump(mode="json", exclude_none=True, exclude_defaults=True),
        change=change.model_dump(mode="json") if change is not None else None,
    )
