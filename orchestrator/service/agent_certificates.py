"""By which certificates relays know a fleet's agents: whose hold, whose do not, and what is not known."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from orchestrator.service.background import FLEETS
from orchestrator.service.fleets import Fleets
from orchestrator.store.agent_certificates import CertificateRows
from orchestrator.store.ledger import Ledger
from policies.access import Action
from policies.agent_certificates import CertificateState, Life, certificate_state
from policies.model.fleet import Fleet
from policies.model.people import Caller
from policies.model.value import Name, Value


class Revocation(Value):
    """When, by whom and why a gateway's certificates were revoked the last time."""

    at: datetime
    person: str
    reason: str


class OpenToken(Value):
    """An enrolment token that still can be used: who made it, and until when it is good."""

    person: str
    expires: datetime


class AgentCertificate(Value):
    """The newest certificate that a gateway was given, or why it has none."""

    gateway: Name
    state: CertificateState
    described: bool
    """Whether the fleet's file has such a gateway."""
    issued_at: datetime | None = None
    expires: datetime | None = None
    """None where none is known: nothing was issued, or it was revoked."""
    revocation: Revocation | None = None
    """The last one; where the state is another than revoked, it ended what was issued before."""
    token: OpenToken | None = None


class FleetCertificates(Value):
    """Certificates of a fleet's agents, those that need somebody first, as many as were asked for."""

    fleet: str
    at: datetime
    """When the ledger was asked."""
    counts: dict[CertificateState, int]
    """How many gateways of the whole fleet are in each state that occurs, worst first."""
    certificates: tuple[AgentCertificate, ...]
    more: int
    """How many come after these."""
    after: str | None = None
    """Where the next ones begin; None where there are none."""


class _Judged(NamedTuple):
    """A gateway's place among all: how badly it needs somebody, then its name."""

    rank: int
    gateway: str
    state: CertificateState


@dataclass(frozen=True)
class AgentCertificateService:
    """Looks at what the ledger knows; no gateway is asked."""

    ledger: Ledger
    fleets: Fleets

    async def of(self, caller: Caller, fleet: str, after: str | None, limit: int) -> FleetCertificates:
        """Return how the certificates of the fleet's agents stand.

        Args:
            caller: Who asks.
            fleet: Whose gateways.
            after: What an earlier answer gave as the beginning of the next ones; from the first without it.
            limit: How many at most.
        """
        named = await asyncio.to_thread(self.fleets.for_action, caller, Action.READ, fleet)
        return await FLEETS.run(partial(self._of, named, after, limit), caller.person)

    def _of(self, fleet: Fleet, after: str | None, limit: int) -> FleetCertificates:
        rows, now = self.ledger.agent_certificates(fleet.name), datetime.now(UTC)
        described = frozenset({one.name for one in fleet.gateways} | {*fleet.clusters})
        judged = sorted(_judged(rows, described, now))
        counts = Counter(one.state for one in judged)
        if after is not None:
            state, _, gateway = after.partition(":")
            begin = (CertificateState(state).rank, gateway)
            judged = [one for one in judged if (one.rank, one.gateway) > begin]
        shown, more = judged[:limit], max(0, len(judged) - limit)
        return FleetCertificates(
            fleet=fleet.name,
            at=now,
            counts={state: counts[state] for state in CertificateState if counts[state]},
            certificates=tuple(_certificate(rows, one, described) for one in shown),
            more=more,
            after=f"{shown[-1].state}:{shown[-1].gateway}" if more else None,
        )


def _judged(rows: CertificateRows, described: frozenset[str], now: datetime) -> Iterator[_Judged]:
    for gateway in described | rows.issued.keys() | rows.revoked.keys():
        issued, revoked = rows.issued.get(gateway), gateway in rows.revoked
        life = Life(*issued) if issued is not None else None
        state = certificate_state(life, now, revoked=revoked, described=gateway in described)
        if state is not None:
            yield _Judged(state.rank, gateway, state)


def _certificate(rows: CertificateRows, judged: _Judged, described: frozenset[str]) -> AgentCertificate:
    issued, revoked = rows.issued.get(judged.gateway), rows.revoked.get(judged.gateway)
    token = rows.open.get(judged.gateway)
    return AgentCertificate(
        gateway=judged.gateway,
        state=judged.state,
        described=judged.gateway in described,
        issued_at=issued.issued if issued is not None else None,
        expires=issued.expires if issued is not None else None,
        revocation=Revocation(**revoked._asdict()) if revoked is not None else None,
        token=OpenToken(**token._asdict()) if token is not None else None,
    )
