"""Settings of a fleet's file: how they are written, whose count, and what of them would change where."""

import pytest
from pydantic import ValidationError

from activities.drivers.daemon.ocserv.settings import beyond_a_reload, with_settings
from orchestrator.cli.screens import KINDS
from policies.history import reload_to_take_back
from policies.model.adoption import ADOPTED
from policies.model.change import ChangeKind, Outcome
from policies.model.errors import Conflict
from policies.model.fleet import Fleet
from policies.model.instance import Steering
from policies.model.settings import Setting
from policies.planning.settings import changing, difference
from tests.unit.fleets import fleet, gateway, state
from tests.unit.test_history import change

RELOAD, CONFIGURE = ChangeKind.RELOAD, ChangeKind.CONFIGURE


def written(**settings: object) -> Fleet:
    """Return a fleet of two whose file says these settings, and gw-2's own name server."""
    said = fleet(gateway("gw-1"), gateway("gw-2")).model_dump(mode="json")
    said["settings"] = {key.replace("_", "-"): value for key, value in settings.items()}
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


def test_a_rollback_takes_settings_back_that_came_last_and_passes_over_routine_reloads() -> None:
    configured, reloaded = change(2, kind=CONFIGURE), change(3, kind=RELOAD)
    assert reload_to_take_back([reloaded, configured, change(1, moved=3)]) == configured
    assert reload_to_take_back([reloaded, change(1, moved=3)]) is None
    assert reload_to_take_back([change(4, moved=3), configured]) is None
    assert reload_to_take_back([change(4, Outcome.REFUSED), configured]) == configured
    back = change(5, Outcome.ROLLED_BACK, CONFIGURE, cause="edge-2")
    assert reload_to_take_back([back, configured]) == back


def test_only_the_last_reload_can_be_taken_back_by_its_name() -> None:
    reloads = [change(3, kind=RELOAD), change(2, kind=CONFIGURE)]
    assert reload_to_take_back(reloads, "edge-3") == reloads[0]
    with pytest.raises(Conflict, match="edge-2 is not the last reload any more"):
        reload_to_take_back(reloads, "edge-2")


def test_every_kind_of_change_has_words_in_the_history() -> None:
    assert set(KINDS) == {kind.value for kind in ChangeKind}
