"""What people read of a plan before they start it."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from policies.model.fleet import Limits
from policies.model.mirror import MirrorTest
from policies.model.placement import Placement
from policies.model.plan import Plan, Strategy
from policies.model.release_tests import Asked, LoadTest, NameTests, ReleaseTests
from policies.planning.summary import (
    LOADED_EXPECTED,
    LOADED_LONGEST,
    MIRRORED_LONGEST,
    MOST_WAVES,
    TESTED_EXPECTED,
    TESTED_LONGEST,
    affected,
    describe,
)
from tests.unit.fleets import NEW, Facts, any_facts, facts_of, planned, some_plan, state


def test_people_read_whom_a_plan_touches_and_how_long_it_takes() -> None:
    limits = Limits(holdout="0", drain_deadline=timedelta(minutes=30))
    upgraded, states, known_good = facts_of(4, limits)
    states["gw-1"] = state("gw-1", sessions=None)
    reach = affected(planned((upgraded, states, known_good)))
    assert (reach.users, reach.exposed, reach.uncounted) == (30, 20, ("gw-1",))
    assert reach.expected == timedelta(minutes=4 + 2 * 20)
    assert reach.longest == timedelta(minutes=40 + 2 * 60 + 30)


def test_shares_before_the_one_that_decides_take_their_time_too() -> None:
    whole, shared = (
        facts_of(2, Limits(switching_per_domain=2, shares=shares)) for shares in ((5, 100), (5, 20, 50, 100))
    )
    longer = affected(planned(shared, Strategy.BLUE_GREEN))
    assert longer.expected - affected(planned(whole, Strategy.BLUE_GREEN)).expected == timedelta(minutes=20)


def test_a_plan_is_said_in_sentences() -> None:
    upgraded, states, known_good = facts_of(16, Limits(canary_share=5))
    states["gw-5"] = state("gw-5", sessions=1)
    del states["gw-7"]
    said = describe(planned((upgraded, states, known_good)))
    assert said[0] == "Strategy canary: one gateway first, then growing waves."
    assert said[1] == (
        "Wave 1: 1 gateway (gw-5), 1 user; none may fail; lease 0:02:00; "
        "5%, 100% of source addresses, compared with itself."
    )
    assert said[2].startswith("Wave 2: 3 gateways (")
    assert "and 7 more), 100 users; at most 1 may fail; lease 0:02:00." in said[3]
    assert said[4].startswith("Wave 4 (hold-out, unchanged until then): 1 gateway (")
    assert "; held if it fails alone; " in said[4]
    assert said[5] == "Left alone: 1 gateway (gw-7)."
    assert said[6].startswith("Automation act: harm goes back by itself")
    assert said[7].startswith(
        "Users on these gateways: 141; at most 100 before a verdict. Deadlines end at most 600"
    )
    assert said[8].startswith("Time: expected ")
    assert len(said) == 9


def planned_with(tests: ReleaseTests | None) -> Plan:
    upgraded, states, known_good = facts_of(2)
    runs = "openvpn" if tests and tests.profiles else "ocserv"
    gateways = tuple(one.model_copy(update={"daemon": runs}) for one in upgraded.gateways)
    changed = upgraded.model_copy(update={"tests": tests, "gateways": gateways, "product": runs})
    return planned((changed, states, known_good), to=NEW.model_copy(update={"product": runs}))


def test_a_plan_says_which_tests_come_before_users_and_who_feels_a_load() -> None:
    load = LoadTest(gateway="gw-1", sessions=4)
    said = describe(planned_with(ReleaseTests(skip=(Asked.GARBAGE, Asked.RESUMED), load=load)))
    assert (
        "Tests of each new instance, before its first user: files, config, plain-http, null-cipher, "
        "wrong-password, login, pings-lost, full-size-lost, cleartext, routes; "
        "left out: garbage, resumed-handshakes."
    ) in said
    assert (
        "Load on gw-1, whose users feel it: 4 sessions, 6 rounds of 0:00:03; "
        "load-sessions, throughput, cpu, handshakes beside the old instance."
    ) in said


def test_a_plan_says_that_logins_are_mirrored_and_how_many_and_counts_the_time_on_each_gateway() -> None:
    mirror = MirrorTest(within=timedelta(minutes=3), at_least=4, at_most=30)
    alone, mirrored = ReleaseTests(), ReleaseTests(mirror=mirror)
    assert (
        "Logins of each gateway's last hour, mirrored for 0:03:00 as the probe's user, 4 to 30 a minute: "
        "mirror-refused, mirror-seconds beside the old instance."
    ) in describe(planned_with(mirrored))
    without, there = (affected(planned_with(tests)) for tests in (alone, mirrored))
    assert there.expected - without.expected == 2 * timedelta(minutes=3)
    assert there.longest - without.longest == 2 * MIRRORED_LONGEST


def test_a_plan_says_which_names_have_to_be_inside_and_outside_of_the_tunnel() -> None:
    inside = {f"host{number}.example.com": () for number in range(5)}
    outside = "www.example.org never sent into it"
    answered = "host0.example.com, host1.example.com, host2.example.com and 2 more answered through it"
    for names, words in (
        (NameTests(inside=inside, outside=("www.example.org",)), f"{answered}; {outside}"),
        (NameTests(outside=("www.example.org",)), outside),
    ):
        said = describe(planned_with(ReleaseTests(names=names)))
        assert f"Names of clients in a tunnel: {words}." in said
        tests = next(line for line in said if line.startswith("Tests of each"))
        assert ("names-inside" in tests, "names-outside" in tests) == (bool(names.inside), True)
    assert not [line for line in describe(planned_with(ReleaseTests())) if "name" in line.lower()]


def test_a_plan_says_which_clients_have_to_go_on_working_and_takes_longer_for_them() -> None:
    profiles: dict[str, tuple[str, ...]] = {"phones-2019": ("data-ciphers AES-256-CBC",), "laptops": ()}
    tests = ReleaseTests(profiles=profiles)
    assert "Clients that have to go on working: phones-2019, laptops." in describe(planned_with(tests))
    with_them, without = (affected(planned_with(one)).expected for one in (tests, ReleaseTests()))
    assert with_them - without == timedelta(seconds=12), "two gateways, one after the other"


def test_the_time_of_a_plan_counts_its_tests_the_wait_for_them_and_its_load() -> None:
    patience = timedelta(minutes=20)
    untested, tested, loaded = (
        affected(planned_with(tests))
        for tests in (
            None,
            ReleaseTests(patience=patience),
            ReleaseTests(patience=patience, load=LoadTest(gateway="gw-2", within=timedelta(seconds=5))),
        )
    )
    assert tested.expected - untested.expected == 2 * TESTED_EXPECTED
    assert tested.longest - untested.longest == 2 * (patience + TESTED_LONGEST)
    assert loaded.expected - tested.expected == timedelta(seconds=6 * 5) + LOADED_EXPECTED
    assert loaded.longest - tested.longest == LOADED_LONGEST


def test_a_load_on_a_gateway_that_does_not_change_takes_no_time() -> None:
    upgraded, states, known_good = facts_of(3)
    states["gw-1"] = state("gw-1", on=NEW)
    quiet, loaded = (
        upgraded.model_copy(update={"tests": tests})
        for tests in (ReleaseTests(), ReleaseTests(load=LoadTest(gateway="gw-1")))
    )
    times = [affected(planned((one, states, known_good))).expected for one in (quiet, loaded)]
    assert times[0] == times[1]


def test_a_plan_without_a_load_says_what_is_not_seen_before_users() -> None:
    assert "No load test: a release that is slower is only seen by its users." in describe(
        planned_with(ReleaseTests())
    )
    assert not [line for line in describe(planned_with(None)) if "test" in line.lower()]


def test_a_plan_without_anybody_unchanged_to_the_end_says_so() -> None:
    assert any(
        line.startswith("No hold-out: the last wave has nobody") for line in describe(planned(facts_of(2)))
    )


def test_a_plan_that_changes_nobody_says_so() -> None:
    upgraded, states, known_good = facts_of(2)
    states = {name: state(name, on=NEW) for name in states}
    assert describe(planned((upgraded, states, known_good))) == ("Nothing to do: every gateway is on 1.4.1.",)


@given(any_facts(), st.sampled_from(Strategy))
def test_however_many_waves_there_are_each_number_is_said_and_the_page_stays_short(
    facts: Facts, strategy: Strategy
) -> None:
    if (plan := some_plan(facts, strategy)) and plan.waves:
        said = [line for line in describe(plan) if line.startswith("Wave")]
        assert len(said) <= MOST_WAVES
        spoken = [
            line.split("(")[0].split(":")[0].removeprefix("Waves ").removeprefix("Wave ") for line in said
        ]
        ends = [part for numbers in spoken for part in numbers.strip().split(" to ")]
        assert (ends[0], ends[-1]) == ("1", str(len(plan.waves)))


def test_ten_thousand_gateways_fit_on_one_screen() -> None:
    said = describe(planned(facts_of(10_000, groups=20)))
    assert len(said) <= 12
    assert max(map(len, said)) < 200
    assert said[5].startswith("Waves 5 to 201: 9829 gateways, 30 to 50 at a time; at most 2 may fail")


def test_a_plan_says_whose_instances_clusters_start_and_end() -> None:
    upgraded, states, known_good = facts_of(3)
    placed = [
        one.model_copy(update={"placement": Placement(cluster="west", node=f"worker-{one.name}")})
        for one in upgraded.gateways[:2]
    ]
    upgraded = upgraded.model_copy(update={"gateways": (*placed, upgraded.gateways[2])})
    said = (
        "Clusters start and end the instances of 2 nodes of west; a node that is cordoned or not ready waits."
    )
    assert said in describe(planned((upgraded, states, known_good)))
