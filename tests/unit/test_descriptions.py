"""What differs between two descriptions of a fleet, and what of it makes a safeguard weaker."""

from collections.abc import Iterator
from datetime import datetime, time, timedelta
from typing import Any, cast, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import create_model

from policies.descriptions import differences, joining, leaving, shortened, weakened
from policies.model.fleet import Fleet
from policies.model.value import Value
from policies.model.windows import Freeze, PatchWindow


def gateway(number: int) -> dict[str, Any]:
    slots = [
        {"name": name, "port": 4440 + place, "device": f"oc{name}", "pool4": f"10.{number}.{place}.0/24"}
        for place, name in enumerate("ab")
    ]
    return {"name": f"gw-{number}", "addresses": [f"192.0.2.{number}"], "slots": slots}


TESTS: dict[str, Any] = {
    "pings_lost": 0.1,
    "names": {"inside": {"git.example.com": ["10.0.0.1"]}, "outside": ["example.org"]},
    "load": {"gateway": "gw-1", "sessions": 10},
    "mirror": {"within": "2m", "at_least": 5, "refused": 0.05},
}


def fleet(gateways: int = 3, **more: Any) -> Fleet:
    said = {
        "name": "edge",
        "product": "ocserv",
        "approvals": 1,
        "tests": TESTS,
        "gateways": [gateway(number) for number in range(1, gateways + 1)],
    }
    return Fleet.model_validate(said | more)


BEFORE = fleet()


def test_a_description_differs_from_itself_in_nothing() -> None:
    assert list(differences(BEFORE, fleet())) == []
    assert weakened(BEFORE, fleet(), {"gw-1", "gw-2", "gw-3"}) == ()


def test_what_differs_is_told_by_key_and_gateway() -> None:
    wider = fleet(4, limits={"switching": 5})
    capacity = wider.gateways[0].model_copy(update={"capacity": 500})
    wider = wider.model_copy(update={"gateways": (capacity, *wider.gateways[1:])})
    assert list(differences(BEFORE, wider)) == [
        "limits.switching is 5, was 2",
        "gateway gw-4 joins, at 192.0.2.4",
        "gateway gw-1: capacity is 500, was 1000",
    ]
    assert joining(BEFORE, wider) == ("gw-4",)
    assert leaving(wider, BEFORE) == ("gw-4",)
    assert list(differences(None, BEFORE)) == ["the fleet edge is new, with 3 gateways"]


WEAKER: list[tuple[dict[str, Any], str]] = [
    ({"approvals": 0}, "approvals is 0, was 1"),
    ({"nat": True}, "nat is true, was false"),
    ({"channel": "testing"}, "channel is testing, was stable"),
    ({"limits": {"steps": ["2", "25%", "100%"]}}, "limits.steps is [2, 25%, 100%], was [1, 25%, 100%]"),
    ({"limits": {"steps": ["100%"]}}, "limits.steps is [100%], was [1, 25%, 100%]"),
    ({"limits": {"failures": "50%"}}, "limits.failures is 50%, was 5%"),
    ({"limits": {"holdout": "0"}}, "limits.holdout is 0, was 1"),
    ({"limits": {"automation": "observe"}}, "limits.automation is observe, was act"),
    ({"limits": {"headroom": 1.0}}, "limits.headroom is 1.0, was 1.2"),
    ({"limits": {"lease": "15m"}}, "limits.lease is 0:15:00, was 0:02:00"),
    ({"limits": {"drain": {"forced": 100}}}, "limits.drain.forced is 100.0, was 20.0"),
    (
        {"limits": {"drain": {"tunnel_gates": []}}},
        "limits.drain.tunnel_gates is [], was [packet-loss]",
    ),
    (
        {"rollback": {"confirm_other_release": False}},
        "rollback.confirm_other_release is false, was true",
    ),
    ({"rollback": {"at_deadline": "nothing"}}, "rollback.at_deadline is nothing, was known_good"),
    ({"tests": None}, "new instances are not tested any more (tests)"),
    ({"tests": TESTS | {"skip": ["routes"]}}, "the test routes is left out (tests.skip)"),
    (
        {"tests": TESTS | {"mirror": None}},
        "users' logins are not mirrored to a new instance any more (tests.mirror)",
    ),
    ({"tests": TESTS | {"load": None}}, "no load is put on a new instance any more (tests.load)"),
    (
        {"tests": TESTS | {"mirror": {"refused": 0.5}}},
        "tests.mirror.refused is 0.5, was 0.05",
    ),
    ({"tests": TESTS | {"pings_lost": 0.5}}, "tests.pings_lost is 0.5, was 0.1"),
    (
        {"tests": TESTS | {"names": {"inside": {"git.example.com": []}}}},
        "names are not asked for as before: example.org, git.example.com (tests.names)",
    ),
]


@pytest.mark.parametrize(("change", "said"), WEAKER, ids=[said for _, said in WEAKER])
def test_what_makes_a_safeguard_weaker_is_named_and_the_way_back_is_not(
    change: dict[str, Any], said: str
) -> None:
    after = fleet(**change)
    assert weakened(BEFORE, after, ()) == (said,)
    if set(change) & {"nat", "channel"} or "tunnel_gates" in said:
        return  # nobody can say which of the two is stricter
    assert weakened(after, BEFORE, ()) == ()


def test_a_gateway_that_serves_does_not_leave_by_one_persons_word() -> None:
    assert weakened(BEFORE, fleet(2), {"gw-3"}) == (
        "gateway gw-3 leaves the fleet, and something serves there",
    )
    assert weakened(BEFORE, fleet(2), {"gw-1"}) == ()


def of_gateways(*said: dict[str, Any]) -> Fleet:
    """Return the fleet with this said of its first gateways besides."""
    rows = [gateway(number) | one for number, one in enumerate(said, 1)]
    return Fleet.model_validate(BEFORE.model_dump() | {"gateways": rows})


SLOTS = gateway(1)["slots"]
THIRD = SLOTS[0] | {"name": "c", "port": 4450, "device": "occ", "pool4": "10.9.0.0/24"}
MOVED = [SLOTS[0] | {"port": 4500}, SLOTS[1]]
SHRUNK = [SLOTS[0] | {"pool4": "10.1.0.0/25"}, SLOTS[1]]
GROWN = [SLOTS[0] | {"pool4": "10.1.0.0/23"}, SLOTS[1] | {"pool4": "10.1.4.0/24"}]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"capacity": 1500}, "capacity is 1500, was 1000"),
        ({"capacity": 900}, None),
        ({"domain": "rack-2"}, "domain is rack-2, was main"),
        ({"group": "west"}, "group is west, was main"),
        ({"metrics_port": 9501}, "Prometheus finds it at 192.0.2.1:9501, was 192.0.2.1:9500"),
        ({"port": 8443}, "port is 8443, was 443, and something serves there"),
        ({"addresses": ["192.0.2.1", "192.0.2.11"]}, None),
        (
            {"runtime": "kubernetes", "placement": {"cluster": "west", "node": "worker-1"}},
            "placement is node worker-1 of cluster west, was nothing, and something serves there",
        ),
        ({"slots": MOVED}, "slot a is not what it was, and something serves there"),
        ({"slots": SHRUNK}, "slot a is not what it was, and something serves there"),
        (
            {
                "slots": [
                    *SLOTS,
                    SLOTS[0] | {"name": "c", "port": 4450, "device": "occ", "pool4": "10.9.0.0/24"},
                ]
            },
            None,
        ),
    ],
)
def test_what_is_said_otherwise_of_a_gateway_may_make_a_safeguard_weaker(
    more: dict[str, Any], said: str | None
) -> None:
    found = weakened(BEFORE, of_gateways(more, {}, {}), {"gw-1"})
    assert found[:1] == ((f"gateway gw-1: {said}",) if said is not None else ())


def test_a_pool_that_grows_at_its_end_takes_nobody_their_address() -> None:
    before = of_gateways({"slots": [SLOTS[0], SLOTS[1] | {"pool4": "10.1.4.0/24"}]}, {}, {})
    assert weakened(before, of_gateways({"slots": GROWN}, {}, {}), {"gw-1"}) == ()


def test_an_address_that_users_dial_is_not_taken_away_by_one_persons_word() -> None:
    both = of_gateways({"addresses": ["192.0.2.1", "192.0.2.11"]}, {}, {})
    lost = "gateway gw-1: 192.0.2.11 is no address of it any more, and something serves there"
    assert weakened(both, BEFORE, {"gw-1"}) == (lost,)
    assert weakened(both, BEFORE, ()) == ()


partitions = st.tuples(*[st.sampled_from(["a", "b", "c"])] * 3)


@given(partitions, partitions, st.sampled_from(["domain", "group"]))
def test_other_names_for_the_same_domains_and_groups_are_no_safeguard(
    one: tuple[str, ...], other: tuple[str, ...], key: str
) -> None:
    first, second = (of_gateways(*({key: name} for name in names)) for names in (one, other))
    same = all((one[i] == one[j]) == (other[i] == other[j]) for i in range(3) for j in range(3))
    assert (weakened(first, second, ()) == ()) is same
    assert (weakened(second, first, ()) == ()) is same


def test_more_gateways_and_settings_are_no_safeguard() -> None:
    assert weakened(BEFORE, fleet(9, settings={"dns": ["10.0.0.53"]}), ()) == ()


limits = st.fixed_dictionaries(
    {
        "switching": st.integers(1, 9),
        "draining": st.integers(1, 90),
        "headroom": st.floats(1, 3),
        "failures": st.sampled_from(["1%", "5%", "50%"]),
        "holdout": st.sampled_from(["0", "1", "2", "5%"]),
        "canary_share": st.integers(1, 100),
        "automation": st.sampled_from(["observe", "ask", "act"]),
    }
)


@given(limits, limits)
def test_of_two_descriptions_that_differ_in_limits_one_is_weaker(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    first, second = fleet(limits=one), fleet(limits=other)
    there, back = weakened(first, second, ()), weakened(second, first, ())
    assert bool(there or back) == (first.limits != second.limits)


NIGHT: dict[str, Any] = {
    "name": "night",
    "tz": "UTC",
    "rrule": "FREQ=WEEKLY;BYDAY=TU",
    "start": "01:00",
    "duration": "4h",
}
EVERYTHING: dict[str, Any] = {
    "name": "edge",
    "product": "ocserv",
    "limits": {"drain": {}},
    "rollback": {},
    "tests": TESTS,
    "chat": {"channels": [{"workspace": "chat.example.org", "channel": "!ops:chat.example.org"}]},
    "windows": [NIGHT],
    "freezes": [{"name": "f", "from": "2026-01-01T00:00", "to": "2026-01-02T00:00", "tz": "UTC"}],
    "drills": {"spare": ["gw-2"]},
    "recurring": {"channel": "stable"},
    "gateways": [
        gateway(1) | {"runtime": "kubernetes", "placement": {"cluster": "west", "node": "worker-1"}},
        gateway(2),
    ],
}
"""A description that has every part."""


def models_in(model: type[Value], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield where a description has a model of its own, by the keys that lead there."""
    yield at
    for name, field in model.model_fields.items():
        if (inner := model_of(field.annotation)) is not None:
            yield from models_in(inner, (*at, name))


def model_of(annotation: Any) -> type[Value] | None:
    """Return the model that a key holds, or holds several or perhaps one of."""
    if isinstance(annotation, type) and issubclass(annotation, Value):
        return annotation
    return next(filter(None, map(model_of, get_args(annotation))), None)


def with_a_later_key(model: type[Value], at: tuple[str, ...]) -> type[Value]:
    """Return the model with one key more where those keys lead."""
    if not at:
        return create_model("Later", __base__=model, later=(int, 1))
    field = model.model_fields[at[0]]
    inner: Any = with_a_later_key(cast(type[Value], model_of(field.annotation)), at[1:])
    several = get_origin(field.annotation) is tuple
    default = ... if field.is_required() else field.default
    fields: Any = {at[0]: (tuple[inner, ...] if several else inner | None, default)}
    return create_model("Later", __base__=model, **fields)


def with_it_changed(said: dict[str, Any], at: tuple[str, ...]) -> dict[str, Any]:
    if not at:
        return said | {"later": 2}
    inner = said.get(at[0], {})
    changed = (
        [with_it_changed(inner[0], at[1:]), *inner[1:]]
        if isinstance(inner, list)
        else with_it_changed(inner, at[1:])
    )
    return said | {at[0]: changed}


@pytest.mark.parametrize("at", [*models_in(Fleet)], ids=".".join)
def test_a_key_that_is_added_anywhere_to_a_description_weakens_it_until_it_is_decided(
    at: tuple[str, ...],
) -> None:
    """M6: a fleet's key that no list named could be changed by one administrator."""
    later = cast(type[Fleet], with_a_later_key(Fleet, at))
    before, after = (later.model_validate(said) for said in (EVERYTHING, with_it_changed(EVERYTHING, at)))
    assert weakened(before, before, {"gw-1"}) == ()
    assert weakened(before, after, {"gw-1"})


def test_fewer_drills_mentions_and_apart_beginnings_weaken_a_safeguard() -> None:
    """M6: these were in no list."""

    def said(**more: Any) -> Fleet:
        return Fleet.model_validate(EVERYTHING | more)

    both, one = said(drills={"spare": ["gw-1", "gw-2"]}), said(drills={"spare": ["gw-2"]})
    assert weakened(both, one, ()) == ("no drill is rehearsed on gw-1 any more (drills.spare)",)
    assert weakened(one, both, ()) == ()
    assert weakened(one, said(drills=None), ()) == ("drills are not rehearsed any more (drills)",)
    rarer = said(drills={"spare": ["gw-2"], "every": "30d"})
    assert weakened(one, rarer, ()) == ("drills.every is 30 days, 0:00:00, was 7 days, 0:00:00",)
    apart = said(jitter="30m")
    assert weakened(apart, said(), ()) == ("jitter is nothing, was 0:30:00",)
    assert weakened(said(), apart, ()) == ()
    called = said(chat=EVERYTHING["chat"] | {"mentions": ["ana"]})
    assert weakened(called, said(), ()) == ("ana is not called in chats any more (chat.mentions)",)
    assert weakened(said(), called, ()) == ()


def test_other_steering_of_a_gateway_that_serves_weakens_a_safeguard() -> None:
    """M6: what decides who gets new sessions was in no list."""
    after = of_gateways({"steering": "redirect"}, {}, {})
    assert weakened(BEFORE, after, {"gw-1"}) == (
        "gateway gw-1: steering is redirect, was nftables, and something serves there",
    )
    assert weakened(BEFORE, after, ()) == ()


def test_a_long_list_is_cut_and_counted() -> None:
    assert shortened(["a", "b", "c"], 2) == ("a", "b", "and 1 more")
    assert shortened(["a", "b"], 2) == ("a", "b")


def test_whoever_widens_windows_or_takes_a_freeze_out_weakens_a_safeguard() -> None:
    night = PatchWindow(name="n", tz="UTC", rrule="FREQ=DAILY", start=time(2), duration=timedelta(hours=4))
    day = night.model_copy(update={"name": "d", "start": time(10)})
    freeze = Freeze(
        name="f",
        begins=datetime.fromisoformat("2026-01-01"),
        ends=datetime.fromisoformat("2026-01-02"),
        tz="UTC",
    )
    bare = fleet()
    careful = bare.model_copy(update={"windows": (night, day), "freezes": (freeze,)})
    assert weakened(bare, careful, ()) == ()
    assert weakened(careful, careful.model_copy(update={"windows": (night,)}), ()) == ()
    for wider, said in (
        (bare, "windows are others, so waves may start at other times"),
        (careful.model_copy(update={"freezes": ()}), "the freeze f is taken out or changed"),
        (careful.model_copy(update={"min_tail": timedelta(0)}), "min_tail"),
        (careful.model_copy(update={"tz": "Asia/Tokyo"}), "gateways are in another zone"),
    ):
        assert any(said in one for one in weakened(careful, wider, ())), said


def test_whoever_lets_a_chat_say_yes_or_speak_in_another_room_weakens_a_safeguard() -> None:
    room = {"workspace": "chat.example.org", "channel": "!ops:chat.example.org"}
    spoken = fleet(chat={"channels": [room]})
    assert weakened(fleet(), spoken, ()) == ("the fleet is spoken of in another room of a chat",)
    assert weakened(spoken, fleet(), ()) == ()
    approving = fleet(chat={"channels": [room], "approvals": True})
    assert weakened(spoken, approving, ()) == ("approvals are taken in chats",)


def test_whoever_moves_a_fleet_to_another_zone_moves_its_freezes() -> None:
    here, there = fleet(tz="Europe/Berlin"), fleet(tz="Pacific/Kiritimati")
    said = "gateways are in another zone, so their windows and freezes are at other times"
    assert weakened(here, there, ()) == (said,)


def test_a_client_that_is_not_tried_any_more_or_otherwise_is_named() -> None:
    def with_profiles(**profiles: list[str]) -> Fleet:
        said = {"name": "edge", "product": "openvpn", "tests": {"profiles": profiles}}
        return Fleet.model_validate(said | {"gateways": [gateway(1) | {"daemon": "openvpn"}]})

    before = with_profiles(phones=["data-ciphers AES-256-CBC"], laptops=[])
    fewer = with_profiles(phones=["data-ciphers AES-256-GCM"])
    assert weakened(before, fewer, ()) == (
        "clients are not tried as before: laptops, phones (tests.profiles)",
    )
    assert weakened(fewer, with_profiles(phones=["data-ciphers AES-256-GCM"], laptops=[]), ()) == ()


def test_whoever_has_recurring_upgrades_go_another_way_weakens_a_safeguard() -> None:
    """L8: only that they begin took a second person, and not how they go."""
    night = {
        "name": "night",
        "tz": "UTC",
        "rrule": "FREQ=WEEKLY;BYDAY=TU",
        "start": "01:00",
        "duration": "4h",
    }
    more: dict[str, Any] = {"windows": [night]}
    before = fleet(**more, recurring={"channel": "stable"})
    after = fleet(**more, recurring={"channel": "stable", "strategy": "rolling"})
    assert weakened(before, before, ()) == ()
    assert weakened(before, after, ()) == (
        "recurring upgrades start without a person and are rolling, not canary",
    )
    assert weakened(after, before, ()) == (
        "recurring upgrades start without a person and are canary, not rolling",
    )
