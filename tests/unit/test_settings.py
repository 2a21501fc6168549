"""Settings of a fleet's file: how they are written, whose count, and what of them would change where."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from activities.drivers.daemon.ocserv.settings import beyond_a_reload, with_settings
from orchestrator.service.drift import differences
from orchestrator.service.surveys import Surveyed
from orchestrator.words.changes import KINDS
from policies.adoption import release_of
from policies.drift import unset
from policies.history import UnfinishedSettings, ending_of_lost, reload_to_take_back, unfinished_settings
from policies.model.adoption import ADOPTED
from policies.model.change import NOT_ASKED, ChangeKind, ChangeRecord, LostChange, Outcome
from policies.model.errors import Conflict
from policies.model.fleet import Fleet
from policies.model.instance import Steering
from policies.model.settings import Setting
from policies.planning import settings
from policies.planning.reload import parted_reload, parted_repeat, parted_settings
from policies.planning.settings import changing, difference, nothing_to_change, passed_over
from tests.unit.fleets import OLD, fleet, gateway, state
from tests.unit.test_history import AT, change

RELOAD, CONFIGURE, GONE_BACK = ChangeKind.RELOAD, ChangeKind.CONFIGURE, ChangeKind.GO_BACK
HELD, ROLLED_BACK = Outcome.HELD, Outcome.ROLLED_BACK


def written(**given: object) -> Fleet:
    """Return a fleet of two whose file says these settings, and gw-2's own name server."""
    said = fleet(gateway("gw-1"), gateway("gw-2")).model_dump(mode="json")
    said["settings"] = {key.replace("_", "-"): value for key, value in given.items()}
    said["gateways"][1]["settings"] = {"dns": "10.2.0.53"}
    return Fleet.model_validate(said)


def test_one_value_needs_no_list_and_a_gateway_has_its_own_key_by_key() -> None:
    made = written(dns=["10.0.0.53", "10.0.1.53"], idle_timeout=1800, tunnel_all_dns=True)
    assert made.settings_of(made.gateway("gw-1")) == (
        Setting(key="dns", values=("10.0.0.53", "10.0.1.53")),
        Setting(key="idle-timeout", values=("1800",)),
        Setting(key="tunnel-all-dns", values=("true",)),
    )
    assert made.settings_of(made.gateway("gw-2"))[0].values == ("10.2.0.53",)


@pytest.mark.parametrize("wrong", ["two\nlines", "", 1.5, {"a": 1}])
def test_a_value_that_could_begin_another_line_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        written(banner=wrong)


def test_a_fleet_without_settings_has_the_digests_that_it_had() -> None:
    said = fleet(gateway("gw-1")).model_dump_json()
    assert "settings" not in said
    assert "removed_users" not in said


def test_what_differs_is_said_once_for_all_alike_and_what_was_adopted_is_left_alone() -> None:
    made = written(dns="10.0.0.53", banner="password=hunter2 is no setting")
    own = state("gw-2").model_copy(update={"steering": Steering(serving=ADOPTED)})
    found = changing(made, {"gw-1": state("gw-1"), "gw-2": own})
    assert (found.gateways, found.keys) == (("gw-1",), ("banner", "dns"))
    assert found.sentences[0] == "gw-1:"
    assert "hunter2" not in "".join(found.sentences)
    has = state("gw-1").model_copy(update={"settings": ("dns = 10.9.9.9", "route = 10.0.0.0/8")})
    assert difference(written(dns="10.0.0.53"), made.gateway("gw-1"), has) == (
        "- dns = 10.9.9.9",
        "- route = 10.0.0.0/8",
        "+ dns = 10.0.0.53",
    )


FOUND = release_of("ocserv", "1.1.6", OLD.executable)
FIRST_UPGRADE = "change it there, and run `penstock config start` after the first upgrade"


def test_gateways_that_get_no_settings_are_named_each_with_what_to_do() -> None:
    names = tuple(f"gw-{number}" for number in range(1, 9))
    said = fleet(*map(gateway, names)).model_dump(mode="json") | {"settings": {"dns": "10.0.0.53"}}
    made = Fleet.model_validate(said)
    has = {"settings": ("dns = 10.0.0.53",)}
    own = {"steering": Steering(serving=ADOPTED)}
    states = {name: state(name).model_copy(update=has) for name in names}
    states |= {name: states[name].model_copy(update=own) for name in ("gw-2", "gw-3")}
    states["gw-6"] = state("gw-6")
    del states["gw-4"], states["gw-7"], states["gw-8"]
    without = passed_over(made, states, {"gw-4": FOUND, "gw-8": OLD}, {"gw-5", "gw-6", "gw-7"})
    assert without.adopted == ("gw-2", "gw-3", "gw-4")
    assert without.quarantined == ("gw-6", "gw-7")  # gw-5 has the settings already
    assert nothing_to_change(made, without, ("gw-8",)) == (
        "2 of 8 gateways of edge have these settings already; 3 gateways (gw-2, gw-3, gw-4) use the "
        f"adopted daemon's own configuration: {FIRST_UPGRADE}; 2 gateways (gw-6, gw-7) are in quarantine: "
        "return them, and run `penstock config start` again; 1 gateway (gw-8) does not answer"
    )


def test_where_every_gateway_has_the_settings_or_the_file_has_none_no_gateway_is_named() -> None:
    made = fleet(gateway("gw-1"), gateway("gw-2"))
    own = state("gw-2").model_copy(update={"steering": Steering(serving=ADOPTED)})
    without = passed_over(made, {"gw-1": state("gw-1"), "gw-2": own}, {}, {"gw-1"})
    assert without.sentence == ""
    assert nothing_to_change(made, without, ()) == "the gateways of edge have these settings already"


def test_a_repeat_for_gateways_that_missed_settings_names_no_others() -> None:
    made = written(dns="10.0.0.53")
    own = state("gw-2").model_copy(update={"steering": Steering(serving=ADOPTED)})
    states = {"gw-1": state("gw-1"), "gw-2": own}
    without = passed_over(made, states, {}, frozenset())
    plan = parted_settings(made, ("gw-1",), changing(made, states), without)
    assert plan.header.passed_over == without.sentence
    assert parted_repeat(plan.header, plan.parts[0].members).header.passed_over == ""


def test_lines_that_differ_alike_on_many_gateways_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = list[str]()

    def noted(line: str) -> str:
        shown.append(line)
        return line

    monkeypatch.setattr(settings, "without_secrets", noted)
    routes = [f"10.77.{number}.0/24" for number in range(200)]
    many = fleet(*[gateway(f"gw-{number}") for number in range(40)]).model_dump(mode="json")
    said = Fleet.model_validate(many | {"settings": {"route": routes}})
    found = changing(said, {one.name: state(one.name) for one in said.gateways})
    assert (len(found.gateways), len(shown)) == (40, 200)


def test_a_plan_of_hundreds_of_lines_is_cut_into_parts_that_the_engine_carries_in_whatever_order() -> None:
    many = {key: [f"{n}.department.corp.example.com" for n in range(200)] for key in ("split-dns", "nbns")}
    names = tuple(f"gw-{n}" for n in range(1, 121))
    said = fleet(*map(gateway, names)).model_dump(mode="json") | {"settings": many}
    made = Fleet.model_validate(said)
    found = changing(made, {name: state(name) for name in names})
    plan, turned = parted_settings(made, names, found), parted_settings(made, names[::-1], found)
    assert plan.header.digest == turned.header.digest
    assert [member.gateway.name for part in plan.parts for member in part.members] == [*names]
    assert max(len(part.model_dump_json()) for part in plan.parts) < 256 * 1024
    assert plan.header.waves[-1].parts > parted_reload(made, names).header.waves[-1].parts


def test_a_difference_of_hundreds_of_lines_shows_the_first_of_them() -> None:
    """Drift names 500 gateways, each with a line or two on a screen."""
    many = fleet(gateway("gw-1")).model_dump(mode="json")
    said = Fleet.model_validate(many | {"settings": {"route": [f"10.78.{n}.0/24" for n in range(200)]}})
    [found] = differences(said, Surveyed(states={"gw-1": state("gw-1")}), {})
    assert found.sentence.startswith("settings of fleet.yaml: + route = 10.78.0.0/24; ")
    assert found.sentence.endswith("10.78.7.0/24; and 192 more lines")


def test_drift_names_a_setting_that_no_gateway_takes() -> None:
    made = fleet(gateway("gw-1")).model_dump(mode="json")
    wrong = Fleet.model_validate(made | {"settings": {"mtu": 1}})
    first, *_ = differences(wrong, Surveyed(states={"gw-1": state("gw-1")}), {})
    assert first.sentence == (
        "fleet.yaml: no gateway takes these settings: mtu 1 is not 576 to 9000 bytes; "
        "correct it in the fleet's file"
    )


def test_a_key_of_the_fleet_takes_the_place_of_every_line_of_it_but_those_of_sections() -> None:
    config = (
        "route = 10.1.0.0/16\n# route = x\nroute = 10.2.0.0/16\ndpd = 10\n[vhost:a]\nroute = 10.3.0.0/16\n"
    )
    assert with_settings(config, (Setting(key="route", values=("default",)),)) == (
        "# route = x\ndpd = 10\nroute = default\n[vhost:a]\nroute = 10.3.0.0/16\n"
    )


def test_a_pool_may_grow_and_nothing_else_that_is_not_a_fleets_may_change() -> None:
    pool = "ipv4-network = 10.0.0.0\nipv4-netmask = 255.255.255.0\ntcp-port = 443\n"
    larger, other = pool.replace("255.0\n", "0.0\n"), pool.replace("10.0.0.0", "10.0.9.0")
    assert beyond_a_reload(pool, larger) == ()
    assert beyond_a_reload(larger, pool) == ("ipv4-netmask",)
    assert beyond_a_reload(pool, other) == ("ipv4-network",)
    assert beyond_a_reload(pool, pool.replace("443", "444") + "dns = 10.0.0.1\n") == ("tcp-port",)


def test_a_rollback_takes_the_last_settings_back_and_passes_over_routine_reloads() -> None:
    configured, reloaded = change(2, kind=CONFIGURE), change(3, kind=RELOAD)
    assert reload_to_take_back([reloaded, configured, change(1, moved=3)]) == configured
    assert reload_to_take_back([reloaded, change(1, moved=3)]) is None
    assert reload_to_take_back([change(4, Outcome.REFUSED), configured]) == configured
    back = change(5, Outcome.ROLLED_BACK, CONFIGURE, cause="edge-2")
    assert reload_to_take_back([back, configured]) == back


@pytest.mark.parametrize(
    "since",
    [
        pytest.param([change(4, ROLLED_BACK, GONE_BACK, moved=1)], id="one gateway returned"),
        pytest.param([change(4, moved=3)], id="a release was promoted"),
        pytest.param(
            [change(5, ROLLED_BACK, GONE_BACK, moved=3), change(4, moved=3, taken_back=3)],
            id="and was taken back",
        ),
        pytest.param([change(4, kind=ChangeKind.INSTALL, moved=1)], id="a gateway joined"),
        pytest.param([change(4, Outcome.REFUSED, CONFIGURE)], id="other settings were refused"),
    ],
)
def test_the_last_settings_are_taken_back_whatever_releases_gateways_got_or_left_since(
    since: list[ChangeRecord],
) -> None:
    """Its hosts give them to all that they start; one gateway's return hid them from everybody."""
    first, last = change(2, kind=CONFIGURE), change(3, kind=CONFIGURE)
    assert reload_to_take_back([*since, last, first]) == last
    assert reload_to_take_back([*since, last, first], "edge-3") == last
    back = change(8, ROLLED_BACK, CONFIGURE, cause="edge-3")
    again = [change(9, moved=1), back, *since, last, first]
    assert reload_to_take_back(again) == back  # twice is once: those of edge-2 are not kept


def test_what_repeats_settings_is_taken_back_with_them_by_either_name() -> None:
    repeat, first = change(3, kind=CONFIGURE, repeats="edge-2"), held(2)
    assert reload_to_take_back([repeat, first]) == repeat
    assert reload_to_take_back([repeat, first], "edge-2") == repeat


def test_only_the_last_reload_can_be_taken_back_by_its_name() -> None:
    reloads = [change(3, kind=RELOAD), change(2, kind=CONFIGURE)]
    assert reload_to_take_back(reloads, "edge-3") == reloads[0]
    with pytest.raises(Conflict, match="edge-2 is not the last reload any more"):
        reload_to_take_back(reloads, "edge-2")


def test_a_repeat_stands_for_its_reload_unless_another_one_has_come_between() -> None:
    repeat, other, first = (
        change(4, kind=RELOAD, repeats="edge-2"),
        change(3, kind=CONFIGURE),
        change(2, kind=RELOAD),
    )
    assert reload_to_take_back([repeat, first], "edge-4") == repeat
    for named in ("edge-2", "edge-3", "edge-4"):
        with pytest.raises(Conflict, match=f"{named} is not the last reload any more"):
            reload_to_take_back([repeat, other, first], named)
    assert reload_to_take_back([repeat, other, first]) == other


def held(number: int, cause: str | None = None, repeats: str | None = None) -> ChangeRecord:
    return change(number, HELD, CONFIGURE, cause=cause, repeats=repeats)


def looked_for(*history: ChangeRecord) -> tuple[str, set[str], set[str]] | None:
    """Return the change that some may have missed, and which answers are as good; None for no such change."""
    found = unfinished_settings(history)
    return (found.change.name, {*found.answered}, {*found.went_back}) if found else None


def test_settings_are_missed_of_the_last_change_that_did_anything_and_of_no_older_one() -> None:
    assert looked_for(held(2), held(1)) == ("edge-2", {"edge-2"}, set())
    assert looked_for(change(2, kind=CONFIGURE), held(1)) is None
    refused = change(2, Outcome.REFUSED, CONFIGURE)
    assert looked_for(refused, held(1)) == ("edge-1", {"edge-1", "edge-2"}, set())
    again = held(2, repeats="edge-1")
    assert looked_for(again, held(1)) == ("edge-1", {"edge-1"}, set())
    assert looked_for(change(2, None, CONFIGURE), held(1)) is None


@pytest.mark.parametrize("outcome", [Outcome.PROMOTED, HELD, Outcome.REFUSED, Outcome.ABORTED])
def test_however_a_repeat_of_settings_ended_each_gateway_is_asked_that_never_answered(
    outcome: Outcome,
) -> None:
    """One that was in quarantine when the repeat reached all others was forgotten."""
    repeat = change(2, outcome, CONFIGURE, repeats="edge-1")
    repeat = repeat.model_copy(update={"sentence": f"it was lost; {NOT_ASKED}"})
    assert looked_for(repeat, held(1)) == ("edge-1", {"edge-1"}, set())
    back = change(4, Outcome.ROLLED_BACK, CONFIGURE, cause="edge-2", repeats="edge-3")
    assert looked_for(back, held(3, cause="edge-2"), held(2)) == ("edge-3", {"edge-3"}, {"edge-3"})
    assert looked_for(change(2, None, CONFIGURE, repeats="edge-1"), held(1)) is None


def test_nobody_goes_on_by_itself_with_settings_that_were_stopped() -> None:
    stopped = held(1).model_copy(update={"sentence": f"gw-1 says no; {NOT_ASKED}"})
    assert looked_for(stopped) is None
    assert looked_for(change(2, Outcome.ABORTED, CONFIGURE), held(1)) is None
    repeat = change(2, Outcome.ABORTED, CONFIGURE, repeats="edge-1")
    assert looked_for(repeat, held(1)) == ("edge-1", {"edge-1"}, set())


def test_a_rollback_of_settings_whose_change_died_goes_on_by_itself() -> None:
    lost = change(3, None, CONFIGURE, cause="edge-2")
    ending = ending_of_lost(LostChange(record=lost), "edge-4")
    ended = lost.model_copy(update={"outcome": ending.outcome, "sentence": ending.sentence})
    assert looked_for(ended, change(2, kind=CONFIGURE)) == ("edge-3", {"edge-3"}, set())
    forward = ending_of_lost(LostChange(record=change(3, None, CONFIGURE)), "edge-4")
    assert forward.sentence.endswith(NOT_ASKED)


def test_the_end_of_an_upgrade_that_died_does_not_say_that_all_are_back_while_one_is_not() -> None:
    lost = LostChange(record=change(3, None, ChangeKind.UPGRADE))
    assert ending_of_lost(lost, "edge-4").sentence.endswith("edge-4 brought its gateways back")
    some = ending_of_lost(lost, "edge-4", all_back=False).sentence
    assert some.endswith("edge-4 brought gateways back, and names those that are not")


def test_after_a_rollback_the_settings_of_before_are_those_that_may_be_missed() -> None:
    back = change(5, Outcome.ROLLED_BACK, CONFIGURE, cause="edge-2")
    repeat = change(3, kind=CONFIGURE, repeats="edge-2")
    assert looked_for(back, repeat, held(2), held(1)) == ("edge-1", {"edge-1", "edge-2"}, {"edge-5"})
    assert looked_for(held(5, cause="edge-2"), held(2)) == ("edge-5", {"edge-5"}, set())


def test_a_try_in_vain_makes_the_next_one_wait_twice_as_long() -> None:
    tries = [change(number, Outcome.REFUSED, CONFIGURE, repeats="edge-1") for number in (3, 2)]
    found = unfinished_settings([*tries, held(1)])
    assert found is not None
    assert found.rests_until == AT + timedelta(hours=3, minutes=2)


@pytest.mark.parametrize(
    ("answered", "settings", "missed"),
    [
        ("", (), True),
        ("edge-0", ("dns = 10.0.0.53",), True),  # it has them by chance, and was not asked
        ("edge-1", (), False),  # it refused them
        ("edge-2", (), False),  # it refused later ones
        ("edge-5", (), True),
        ("edge-5", ("dns = 10.0.0.53",), False),
        (None, (), False),
    ],
)
def test_who_has_answered_settings_or_later_ones_has_not_missed_them(
    answered: str | None, settings: tuple[str, ...], *, missed: bool
) -> None:
    unfinished = UnfinishedSettings(
        change=held(1), answered=frozenset({"edge-1", "edge-2"}), went_back=frozenset({"edge-5"})
    )
    said = state("gw-1").model_copy(update={"settings_answered": answered, "settings": settings})
    wanted = {"gw-1": ("dns = 10.0.0.53",)}
    assert unset({"gw-1": said}, wanted, unfinished) == (("gw-1",) if missed else ())
    own = said.model_copy(update={"steering": Steering(serving=ADOPTED)})
    assert unset({"gw-1": own}, wanted, unfinished) == ()


def test_a_rollback_of_settings_is_missed_by_those_alone_who_have_them() -> None:
    back = UnfinishedSettings(change=held(2, cause="edge-1"), answered=frozenset({"edge-2"}))
    has, never = (state("gw-1").model_copy(update={"settings_answered": one}) for one in ("edge-1", ""))
    assert unset({"gw-1": has, "gw-2": never}, {"gw-1": (), "gw-2": ()}, back) == ("gw-1",)


def test_every_kind_of_change_has_words_in_the_history() -> None:
    assert set(KINDS) == {kind.value for kind in ChangeKind}
