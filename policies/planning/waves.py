"""Cut the gateways that can change into waves: whoever changes first, and whoever stays to compare with.

Every wave takes from each group about the same part, so that each group keeps unchanged gateways
for as long as it can; the hold-out changes after all others. Nothing here depends on a live count
but whether a gateway has far fewer sessions than another, in steps of four: 0, 1-3, 4-15, 16-63, …
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from operator import itemgetter

from policies.model.errors import Refused
from policies.model.fleet import Gateway, Limits, amount
from policies.model.plan import Strategy, Wave
from policies.planning.leases import lease_of

ORDERED = 50
"""Up to so many gateways each group goes from few sessions to many. In a larger fleet some count always
moves from one step to the next, and the plan would never be the same twice: there, only the canary is
chosen by its sessions."""

LEAST_FOR_HOLDOUT = 3
"""Gateways of a group that take users, for each that is held out."""

WHOLE: tuple[int, ...] = (100,)


@dataclass(frozen=True)
class Able:
    """The gateways that can change, with what decides their order.

    Only those that are `alive`, which take users, can be a canary or be compared with one.
    """

    fleet: str
    release: str
    gateways: tuple[Gateway, ...]
    alive: frozenset[str]
    sessions: Mapping[str, int | None]

    def order(self, gateway: Gateway) -> tuple[int, bytes]:
        """Return the gateway's place among others: few sessions first, uncounted ones last."""
        return _bucket(self.sessions[gateway.name]), self.tie(gateway.name)

    def tie(self, name: str) -> bytes:
        """Return the place among equals: by fleet and release, so that each release begins elsewhere."""
        return self._ties[name]

    @cached_property
    def _ties(self) -> dict[str, bytes]:
        key = blake2b(f"{self.fleet} {self.release}".encode(), digest_size=32).digest()
        return {
            one.name: blake2b(one.name.encode(), key=key, digest_size=16).digest() for one in self.gateways
        }


def waves_of(able: Able, limits: Limits, strategy: Strategy, lead: str | None = None) -> tuple[Wave, ...]:
    """Return the waves of the strategy, numbered from 1, each with its shares and its lease.

    `lead` changes before all others, alone or with its whole group.

    Raises:
        Refused: There is nobody to compare with, or a wave would be larger than its leases allow.
    """
    if not able.gateways:
        return ()
    groups = _groups(able)
    if strategy is Strategy.BLUE_GREEN:
        return _numbered(_blue_green(able, groups, limits, lead), limits)
    held = [name for name in _held_out(groups, able, limits) if name != lead]
    last = {*held}
    row = _interleaved([[g for g in found if g.name not in last] for found in groups.values()], able)
    shares = WHOLE
    if strategy is Strategy.CANARY:
        row, shares = _canary_first(row, groups, able, limits, lead)
    row.sort(key=lambda gateway: gateway.name != lead)
    stages = sorted(
        {0, int(lead is not None), *_ends(len(row), len(row) + len(held), limits.steps, strategy)}
    )
    parts = [
        Wave(number=1, gateways=part, shares=WHOLE if begin else shares)
        for begin, end in pairwise(stages)
        for part in _parts(row[begin:end], limits.draining)
    ]
    parts += [Wave(number=1, gateways=part, holdout=True) for part in _parts(held, limits.draining)]
    return _numbered(parts, limits)


def _groups(able: Able) -> dict[str, list[Gateway]]:
    """Each group in the order in which its gateways change."""
    found: dict[str, list[Gateway]] = {}
    by_sessions = len(able.gateways) <= ORDERED
    for gateway in sorted(able.gateways, key=able.order if by_sessions else lambda g: able.tie(g.name)):
        found.setdefault(gateway.group, []).append(gateway)
    return found


def _bucket(sessions: int | None) -> int:
    return 99 if sessions is None else (sessions.bit_length() + 1) // 2


def _held_out(groups: Mapping[str, Sequence[Gateway]], able: Able, limits: Limits) -> list[str]:
    """The last of each group that take users, at most a third: most sessions make the best control."""
    held = []
    for group in sorted(groups):
        alive = [gateway.name for gateway in groups[group] if gateway.name in able.alive]
        alive.sort(key=lambda name: able.sessions[name] is not None)
        most = min(amount(limits.holdout, len(alive)), len(alive) // LEAST_FOR_HOLDOUT)
        held += alive[len(alive) - most :]
    return held


def _interleaved(groups: Sequence[Sequence[Gateway]], able: Able) -> list[Gateway]:
    """Put the groups into one row of which every beginning has about the same part of each."""
    placed = [
        ((index + 0.5) / len(found), able.tie(gateway.name), gateway)
        for found in groups
        for index, gateway in enumerate(found)
    ]
    return [gateway for _, _, gateway in sorted(placed, key=itemgetter(0, 1))]


def _canary_first(
    row: Sequence[Gateway],
    groups: Mapping[str, Sequence[Gateway]],
    able: Able,
    limits: Limits,
    lead: str | None,
) -> tuple[list[Gateway], tuple[int, ...]]:
    """Put first the living gateway with fewest sessions; one without a neighbour is compared with itself."""
    alive = [gateway for gateway in row if gateway.name in able.alive]
    if not alive:
        raise Refused(
            f"fleet {able.fleet}: no gateway that could change takes users now, so a canary shows nothing; "
            f"bring one back, or plan with the rolling strategy"
        )
    living = {group: sum(g.name in able.alive for g in found) for group, found in groups.items()}
    neighboured = [gateway for gateway in alive if living[gateway.group] > 1]
    if lead is not None:
        neighboured = [gateway for gateway in neighboured if gateway.name == lead]
        alive = [gateway for gateway in alive if gateway.name == lead]
        if not alive:
            raise Refused(
                f"fleet {able.fleet}: {lead} takes no users now, and its load test makes it the canary; "
                "bring it back, or name another gateway in tests.load.gateway"
            )
    canary = min(neighboured or alive, key=able.order)
    shares = (limits.canary_share, 100) if limits.canary_share < 100 else WHOLE  # noqa: PLR2004 - %
    if not neighboured and shares == WHOLE:
        shares = _compared_with_itself(able.fleet, limits)
    return [canary, *(gateway for gateway in row if gateway is not canary)], shares


def _blue_green(
    able: Able, groups: Mapping[str, Sequence[Gateway]], limits: Limits, lead: str | None
) -> list[Wave]:
    """One wave a group, small groups first; a gateway is compared with itself, so nobody is held out."""
    shares = _compared_with_itself(able.fleet, limits)
    waves = []
    follow = {group: all(gateway.name != lead for gateway in found) for group, found in groups.items()}
    for _, _, group in sorted((follow[group], len(groups[group]), group) for group in groups):
        names = tuple(gateway.name for gateway in groups[group])
        if len(names) > limits.draining:
            raise Refused(
                f"fleet {able.fleet}: blue-green switches all {len(names)} gateways of group {group} at once "
                f"and {limits.draining} may drain; set limits.draining to {len(names)}, or plan with canary"
            )
        waves.append(Wave(number=1, gateways=names, shares=shares))
    return waves


def _compared_with_itself(fleet: str, limits: Limits) -> tuple[int, ...]:
    if limits.shares == WHOLE:
        raise Refused(
            f"fleet {fleet}: a gateway that is compared with itself needs a share below 100; "
            "write limits.shares like 10, 50, 100"
        )
    return limits.shares


def _parts(row: Sequence[Gateway] | Sequence[str], most: int) -> list[tuple[str, ...]]:
    """Split a stage into waves: no wave has more gateways than may begin to drain together."""
    names = [each if isinstance(each, str) else each.name for each in row]
    return [tuple(names[start : start + most]) for start in range(0, len(names), most)]


def _numbered(waves: Sequence[Wave], limits: Limits) -> tuple[Wave, ...]:
    """Number the waves, with leases that leave room for the drains of those before them."""
    numbered, before = [], 0
    for number, wave in enumerate(waves, start=1):
        lease = lease_of(len(wave.gateways), before, limits.lease)
        numbered.append(wave.model_copy(update={"number": number, "lease": lease}))
        before += len(wave.gateways)
    return tuple(numbered)


def _ends(row: int, everybody: int, steps: Sequence[str], strategy: Strategy) -> list[int]:
    """How many gateways of the row have changed at the end of each of the strategy's stages.

    Steps count everybody, those held out included. A canary goes alone and then follows the steps;
    rolling takes waves of one size: what the steps allow last before everything.
    """
    sizes = sorted({min(amount(step, everybody), row) for step in steps} | {row})
    if strategy is Strategy.CANARY:
        return sorted({1, *sizes})
    stride = max((size for size in sizes if size < row), default=row)
    return [*range(stride, row, stride), row]
