"""The last look before a promotion: whom operators have steered off its release on their hosts."""

import asyncio
from collections import ChainMap

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.facts import FactActivities, LeftOutQuery
from activities.instances import InstanceActivities
from activities.ledger import GatewayResults, LedgerActivities
from policies.drift import by_hand, is_by_hand, taken_off
from policies.model.change import GatewayResult
from policies.model.instance import GatewayState
from policies.model.plan_part import PartKey
from policies.model.value import Digest, Name, Packed, Value
from policies.planning.cohorts import LEFT_OUT
from workflows import control, steps
from workflows.answers import answer_of
from workflows.children import first_named, in_parts


class LastLookOrder(Value):
    """Which gateways are asked: those of these parts of the plan that the change is about to promote."""

    change: Name
    fleet: Name
    plan: Digest
    release: Digest
    keys: tuple[PartKey, ...]
    without: Packed[dict[str, tuple[Name, ...]]] = {}
    """Gateways that are not promoted, by the path of their part."""


class LeftToOperators(Value):
    """All gateways that operators have steered off the release, and why the first are left to them."""

    gateways: Packed[dict[str, tuple[Name, ...]]] = {}
    """By the path of their part, of parts that have any."""
    why: dict[Name, str] = {}


@workflow.defn(name="LastLook")
class LastLook:
    """Ask each gateway for as long as any is asked, whoever is silent beside it."""

    @workflow.run
    async def run(self, order: LastLookOrder) -> LeftToOperators:
        """Return who is left to operators, once the ledger has that; none of them is silent."""
        if len(order.keys) == 1:
            return await self._look_at(order, order.keys[0])
        parts = {
            key.path: order.model_copy(
                update={"keys": (key,), "without": {key.path: order.without.get(key.path, ())}}
            )
            for key in order.keys
        }
        found = await in_parts(LastLook.run, parts, in_turns=True)
        return LeftToOperators(
            gateways=dict(ChainMap(*[one.gateways for one in found])),
            why=first_named(one.why for one in found),
        )

    @staticmethod
    async def _look_at(order: LastLookOrder, key: PartKey) -> LeftToOperators:
        part, without = await control.read_part(order.plan, key), order.without.get(key.path, ())
        gateways = [one.gateway for one in part.members if one.gateway.name not in without]
        answers = await asyncio.gather(
            *[answer_of(gateway, InstanceActivities.observe_gateway, steps.SURVEY) for gateway in gateways],
            return_exceptions=True,
        )
        off = list[GatewayState]()
        for answer in answers:
            if isinstance(answer, GatewayState) and taken_off(answer, order.release):
                off.append(answer)
            elif isinstance(answer, BaseException) and not isinstance(answer, ActivityError):
                raise answer
        if not off:
            return LeftToOperators()
        asked = LeftOutQuery(fleet=order.fleet, gateways=tuple(state.gateway for state in off))
        returned = await control.record(FactActivities.find_handed_over, asked)
        why = {state.gateway: by_hand(order.fleet, state) for state in off if is_by_hand(state, returned)}
        if not why:
            return LeftToOperators()
        rows = tuple(
            GatewayResult(
                gateway=name,
                wave=key.wave,
                state=LEFT_OUT,
                sentence=said,
                started=workflow.now().timestamp(),
                at=workflow.now(),
            )
            for name, said in sorted(why.items())
        )
        await control.record(
            LedgerActivities.record_gateways, GatewayResults(change=order.change, results=rows)
        )
        return LeftToOperators(gateways={key.path: tuple(sorted(why))}, why=why)
