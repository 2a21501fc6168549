"""Compare two descriptions of a fleet: what differs, and which of it makes a safeguard weaker.

Whatever is not known to be as strict as before counts as weaker: a key that is added to fleet.yaml asks for
a second administrator until it has a line here.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from policies.model.chat import FleetChat
from policies.model.fleet import AtDeadline, Automation, Fleet, Gateway, Slot
from policies.model.recurring import RecurringUpgrade
from policies.model.release_tests import ReleaseTests
from policies.model.spare import SpareDrills
from policies.model.value import Name, Value
from policies.model.windows import Freeze, OnWindowClose, PatchWindow

_FREE = frozenset({"settings"})
"""Keys of a fleet and of a gateway that one administrator may change: waves bring them to gateways."""

_OWN_RULE = frozenset(
    {
        "gateways",
        "tests",
        "chat",
        "tz",
        "windows",
        "freezes",
        "on_window_close",
        "min_tail",
        "drills",
        "recurring",
    }
)
"""Keys of a fleet that a function of their own compares; all others are compared key by key."""

_OWN_RULE_OF_GATEWAYS = frozenset(
    {"name", "fleet", "group", "domain", "capacity", "management", "metrics_port", "tz"}
)
_OF_SERVING_GATEWAYS = frozenset({"addresses", "port", "placement", "slots"})
_AS_ON_THE_HOST = frozenset({"runtime", "daemon", "steering", "hook_can", "inside"})
"""Keys that describe how a gateway is built, which matters where something serves."""

_LESS_IS_STRICTER = frozenset(
    {
        "limits.canary_share",
        "limits.failures",
        "limits.switching",
        "limits.switching_per_domain",
        "limits.draining",
        "limits.lease",
        "limits.drain.batch",
        "limits.drain.forced",
        "limits.drain.logins_per_minute",
        "tests.pings_lost",
        "tests.load.cpu",
        "tests.mirror.refused",
        "tests.mirror.seconds",
        "drills.every",
    }
)
_MORE_IS_STRICTER = frozenset(
    {
        "approvals",
        "reload_approvals",
        "limits.headroom",
        "limits.drain_deadline",
        "limits.kept",
        "limits.snapshots_kept",
        "limits.drain.warning",
        "limits.drain.pause",
        "jitter",
        "rollback.confirm_other_release",
        "rollback.confirm_whole_group",
        "tests.patience",
        "tests.mirror.within",
        "tests.mirror.at_least",
        "tests.mirror.at_most",
        "tests.load.sessions",
        "tests.load.within",
        "tests.load.throughput",
        "tests.load.handshakes",
        "tests.load.resumed",
    }
)
_INDIFFERENT = frozenset({"limits.removed_users", "rollback.answer_within", "tests.load.gateway"})
"""Keys that make nothing more or less careful."""

_ABSENT = "nothing"


def differences(before: Fleet | None, after: Fleet) -> Iterator[str]:
    """Yield, a sentence each, what the description after says otherwise than the one before."""
    if before is None:
        yield f"the fleet {after.name} is new, with {_counted(len(after.gateways))}"
        return
    without = {"gateways"}
    yield from _changed(_flat(before.model_dump(exclude=without)), _flat(after.model_dump(exclude=without)))
    known, wanted = _by_name(before), _by_name(after)
    for name in sorted(wanted.keys() - known.keys()):
        yield f"gateway {name} joins, at {', '.join(map(str, wanted[name].addresses))}"
    for name in sorted(known.keys() - wanted.keys()):
        yield f"gateway {name} leaves"
    for name in sorted(known.keys() & wanted.keys()):
        if known[name] != wanted[name]:
            pair = (_flat(known[name].model_dump()), _flat(wanted[name].model_dump()))
            yield from (f"gateway {name}: {said}" for said in _changed(*pair))


def joining(before: Fleet | None, after: Fleet) -> tuple[Name, ...]:
    """Return the gateways that only the description after has, in its order."""
    known = _by_name(before) if before is not None else {}
    return tuple(gateway.name for gateway in after.gateways if gateway.name not in known)


def leaving(before: Fleet | None, after: Fleet) -> tuple[Name, ...]:
    """Return the gateways that only the description before has, in its order."""
    wanted = _by_name(after)
    return tuple(one.name for one in before.gateways if one.name not in wanted) if before is not None else ()


def weakened(before: Fleet | None, after: Fleet, serving: Collection[Name]) -> tuple[str, ...]:
    """Return, a sentence each, where the description after is less careful than the one before.

    Args:
        before: What is so now; None where it cannot be read or there is none.
        after: What is wanted.
        serving: Gateways of which it is known that something serves there.
    """
    if before is None:
        return ()
    found = _less_careful("", before, after, _FREE | _OWN_RULE)
    found += _fewer_tests(before.tests, after.tests)
    found += _weaker_gateways(before, after, serving)
    found += _wider_windows(before, after)
    found += _wider_chat(before.chat, after.chat)
    found += _fewer_drills(before.drills, after.drills)
    found += _recurring_otherwise(before.recurring, after.recurring)
    found += [
        f"gateway {name} leaves the fleet, and something serves there"
        for name in leaving(before, after)
        if name in serving
    ]
    return tuple(found)


def _less_careful(at: str, before: Value, after: Value, apart: Collection[str]) -> list[str]:
    """Return what differs below this key and is not surely as strict as before; `apart` is left out."""
    known, wanted = (_flat(one.model_dump(exclude={*apart}), at) for one in (before, after))
    return [
        _said(key, known.get(key), wanted.get(key))
        for key in sorted(known.keys() | wanted.keys())
        if known.get(key) != wanted.get(key) and not _as_strict(key, known.get(key), wanted.get(key))
    ]


def _as_strict(key: str, before: Any, after: Any) -> bool:
    """Whether what is wanted is surely no less careful than what was there."""
    if key in {"limits.steps", "limits.shares"}:
        return len(after) >= len(before) and all(map(_is_no_larger, after, before))
    if key == "limits.holdout":
        return _is_no_larger(before, after)
    if key == "limits.automation":
        order = list(Automation)
        return order.index(after) >= order.index(before)
    if key == "rollback.at_deadline":
        return bool(after == AtDeadline.KNOWN_GOOD)
    stricter = (key in _LESS_IS_STRICTER and _number(after) <= _number(before)) or (
        key in _MORE_IS_STRICTER and _number(after) >= _number(before)
    )
    return stricter or key in _INDIFFERENT


def _weaker_gateways(before: Fleet, after: Fleet, serving: Collection[Name]) -> Iterator[str]:
    """Yield what is said otherwise of gateways that stay, where it says how many fail apart or who is judged.

    Other names for the same domains or groups change nothing. A domain that is made larger lets fewer fail
    apart, and one that is split lets more switch at once, so every other partition counts.
    """
    known, wanted = _by_name(before), _by_name(after)
    both = [(one, wanted[name]) for name, one in known.items() if name in wanted]
    regrouped = {key: _apart_from_before(both, key) for key in ("domain", "group")}
    for was, now in both:
        said = [
            _said(key, getattr(was, key), getattr(now, key))
            for key, names in regrouped.items()
            if was.name in names
        ]
        if now.capacity > was.capacity:
            said.append(_said("capacity", was.capacity, now.capacity))
        if now.metrics_target != was.metrics_target:
            said.append(f"Prometheus finds it at {now.metrics_target}, was {was.metrics_target}")
        apart = _FREE | _OWN_RULE_OF_GATEWAYS | _OF_SERVING_GATEWAYS
        said += _less_careful("", was, now, apart | _AS_ON_THE_HOST)
        if was.name in serving:
            said += _no_longer_served(was, now)
        yield from (f"gateway {was.name}: {one}" for one in said)


def _apart_from_before(both: Sequence[tuple[Gateway, Gateway]], key: str) -> frozenset[Name]:
    """Return the gateways whose domain or group holds others of these than it did."""
    mates = []
    for side in (0, 1):
        held: dict[str, set[Name]] = {}
        for pair in both:
            held.setdefault(getattr(pair[side], key), set()).add(pair[side].name)
        mates.append({name: names for names in held.values() for name in names})
    return frozenset(name for name, names in mates[0].items() if names != mates[1][name])


def _no_longer_served(was: Gateway, now: Gateway) -> Iterator[str]:
    """Yield what users have now on a gateway that serves, and would not have."""
    lost = [str(address) for address in was.addresses if address not in now.addresses]
    if lost:
        yield f"{', '.join(lost)} is no address of it any more, and something serves there"
    if now.port != was.port:
        yield f"{_said('port', was.port, now.port)}, and something serves there"
    if now.placement != was.placement:
        yield f"{_said('placement', was.placement, now.placement)}, and something serves there"
    for key in sorted(_AS_ON_THE_HOST):
        if getattr(was, key) != getattr(now, key):
            yield f"{_said(key, getattr(was, key), getattr(now, key))}, and something serves there"
    slots = {slot.name: slot for slot in now.slots}
    for slot in was.slots:
        if slot.name not in slots or not _holds(slots[slot.name], slot):
            yield f"slot {slot.name} is not what it was, and something serves there"


def _holds(wider: Slot, slot: Slot) -> bool:
    """Whether whoever has an address of a slot keeps it: at most, its pools have grown at their end."""
    pools = {"pool4", "pool6"}
    if wider.model_dump(exclude=pools) != slot.model_dump(exclude=pools):
        return False
    return all(map(_has_grown, (slot.pool4, slot.pool6), (wider.pool4, wider.pool6)))


def _has_grown(pool: IPv4Network | IPv6Network | None, wider: IPv4Network | IPv6Network | None) -> bool:
    if pool is None or wider is None:
        return pool is None
    return pool.network_address == wider.network_address and pool.prefixlen >= wider.prefixlen


def _fewer_tests(before: ReleaseTests | None, after: ReleaseTests | None) -> list[str]:
    if before is None or before == after:
        return []
    if after is None:
        return ["new instances are not tested any more (tests)"]
    found = [f"the test {test} is left out (tests.skip)" for test in after.skip if test not in {*before.skip}]
    if before.names is not None and (lost := _lost_names(before, after)):
        found.append(f"names are not asked for as before: {', '.join(lost)} (tests.names)")
    if lost_profiles := sorted(
        name for name, one in before.profiles.items() if after.profiles.get(name) != one
    ):
        found.append(f"clients are not tried as before: {', '.join(lost_profiles)} (tests.profiles)")
    if before.mirror is not None and after.mirror is None:
        found.append("users' logins are not mirrored to a new instance any more (tests.mirror)")
    if before.load is not None and after.load is None:
        found.append("no load is put on a new instance any more (tests.load)")
    if before.names is not None and after.names is not None:
        found += _less_careful("tests.names.", before.names, after.names, {"inside", "outside"})
    added_or_lost = {key for key in ("mirror", "load") if None in (getattr(before, key), getattr(after, key))}
    return found + _less_careful("tests.", before, after, {"skip", "names", "profiles"} | added_or_lost)


def _fewer_drills(before: SpareDrills | None, after: SpareDrills | None) -> list[str]:
    """Return which rehearsals are left out, are rarer, or do what none did before."""
    if before is None:
        return []
    if after is None:
        return ["drills are not rehearsed any more (drills)"]
    found = [
        f"no drill is rehearsed on {name} any more (drills.spare)"
        for name in _lost(before.spare, after.spare)
    ]
    return found + _less_careful("drills.", before, after, {"spare"})


def _recurring_otherwise(before: RecurringUpgrade | None, after: RecurringUpgrade | None) -> list[str]:
    if after is None:
        return []
    if before is None:
        return ["recurring upgrades start without a person"]
    found = _less_careful("recurring.", before, after, {"channel", "strategy", "reason"})
    if before.strategy != after.strategy:
        found.append(
            f"recurring upgrades start without a person and are {after.strategy}, not {before.strategy}"
        )
    return found


def _wider_windows(before: Fleet, after: Fleet) -> list[str]:
    """Return where waves may start that could not before, or go on longer."""
    found = []
    if before.windows and (not after.windows or set(_texts(after.windows)) - set(_texts(before.windows))):
        found.append("windows are others, so waves may start at other times")
    zones = [(_zone_of(before, one), _zone_of(after, one)) for one in after.gateways]
    if any(known != wanted and (before.windows or known is not None) for known, wanted in zones):
        found.append("gateways are in another zone, so their windows and freezes are at other times")
    kept = set(_texts(after.freezes))
    found += [
        f"the freeze {one.name} is taken out or changed" for one in before.freezes if _text(one) not in kept
    ]
    if after.min_tail < before.min_tail:
        found.append(_said("min_tail", before.min_tail, after.min_tail))
    if before.on_window_close is not after.on_window_close is OnWindowClose.FINISH_WAVE:
        found.append(_said("on_window_close", before.on_window_close.value, after.on_window_close.value))
    return found


def _wider_chat(before: FleetChat | None, after: FleetChat | None) -> list[str]:
    """Return where people may speak of the fleet, or say yes, who could not before."""
    known, wanted = before or FleetChat(), after or FleetChat()
    found = []
    if wanted.approvals and not known.approvals:
        found.append("approvals are taken in chats")
    if set(wanted.channels) - set(known.channels):
        found.append("the fleet is spoken of in another room of a chat")
    found += [
        f"{name} is not called in chats any more (chat.mentions)"
        for name in _lost(known.mentions, wanted.mentions)
    ]
    return found + _less_careful("chat.", known, wanted, {"approvals", "channels", "mentions"})


def _lost(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Return the names that only the list before has, in its order."""
    return [name for name in before if name not in {*after}]


def _zone_of(fleet: Fleet, gateway: Gateway) -> str | None:
    known = _by_name(fleet).get(gateway.name, gateway)
    return known.tz or fleet.tz


def _text(one: PatchWindow | Freeze) -> str:
    return one.model_dump_json()


def _texts(several: Sequence[PatchWindow | Freeze]) -> list[str]:
    return [_text(one) for one in several]


def _lost_names(before: ReleaseTests, after: ReleaseTests) -> list[str]:
    """Return the names of which less is asked than before."""
    known, wanted = before.names, after.names
    if known is None:
        return []
    inside = wanted.inside if wanted is not None else {}
    outside = wanted.outside if wanted is not None else ()
    lost = {
        name
        for name, addresses in known.inside.items()
        if name not in inside or (addresses and inside[name] != addresses)
    }
    return sorted(lost | {*known.outside} - {*outside})


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield _said(key, before.get(key), after.get(key))


def _said(key: str, before: Any, after: Any) -> str:
    return f"{key} is {_written(after)}, was {_written(before)}"


def _written(value: Any) -> str:
    match value:
        case None:
            return _ABSENT
        case bool():
            return str(value).lower()
        case Enum():
            return str(value.value)
        case tuple() | list():
            return f"[{', '.join(map(_written, value))}]"
        case Mapping():
            return "{" + ", ".join(f"{key}: {_written(one)}" for key, one in value.items()) + "}"
        case _:
            return str(value)


def _flat(value: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Return the values of a document by where they stand; lists are values."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            found |= _flat(inner, f"{at}{key}.")
        elif inner is not None:
            found[f"{at}{key}"] = inner
    return found


def _number(value: Any) -> Any:
    """Return what can be compared; what is absent is the least there is."""
    if value is None:
        return 0
    if isinstance(value, str):
        return float(value.removesuffix("%"))
    return value.total_seconds() if isinstance(value, timedelta) else value


def _is_no_larger(one: Any, other: Any) -> bool:
    """Whether one count or share is surely no larger than another; a count and a share cannot be compared."""
    if other == "100%":
        return True
    if str(one).endswith("%") != str(other).endswith("%"):
        return False
    return bool(_number(one) <= _number(other))


def _by_name(fleet: Fleet) -> dict[Name, Gateway]:
    return {gateway.name: gateway for gateway in fleet.gateways}


def _counted(gateways: int) -> str:
    return "one gateway" if gateways == 1 else f"{gateways} gateways"


def shortened(sentences: Sequence[str], most: int) -> tuple[str, ...]:
    """Return the first of these sentences, and how many there are beside them."""
    if len(sentences) <= most:
        return tuple(sentences)
    return (*sentences[:most], f"and {len(sentences) - most} more")
