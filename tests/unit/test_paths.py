"""The way through a gateway: what is unknown is never well, and what is wrong says what to do."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.drivers.runtime.host.path import flushes
from policies.model.path import PathFacts, TriedTunnel
from policies.paths import findings_of

HEALTHY = PathFacts(
    gateway="gw-1",
    running=("a",),
    steering=True,
    steered_to="a",
    forwards4=True,
    translates=True,
    tracked=10,
    trackable=1000,
    target="10.99.0.7",
    tried=(TriedTunnel(slot="a", let_in=True, small=(4, 4), full=(4, 4), mtu=1400),),
)


def wrong(**facts: object) -> dict[str, str]:
    found = findings_of(HEALTHY.model_copy(update=facts))
    return {one.about: one.sentence for one in found if not one.well}


def test_nothing_is_wrong_with_a_gateway_of_which_everything_is_known_to_be_well() -> None:
    assert wrong() == {}


@pytest.mark.parametrize(
    ("unread", "about"),
    [
        ({"drops": None}, "packet filter"),
        ({"uncovered": None}, "slots' rules"),
        ({"spared": None}, "bans"),
        ({"misrouted": None}, "routes"),
        ({"devices_down": None}, "instances"),
        ({"steering": None}, "steering"),
        ({"forwards4": None}, "forwarding"),
    ],
)
def test_what_could_not_be_read_is_never_well(unread: dict[str, None], about: str) -> None:
    assert list(wrong(**unread)) == [about]


def test_a_steering_table_that_cannot_be_read_is_not_called_one_that_is_not_loaded() -> None:
    """A fresh reader's H2: "is not loaded, start the agent" was false, only its listing had failed."""
    unread = HEALTHY.model_copy(
        update={"steering": None, "steered_to": None, "steering_unread": "nft cannot list the table: busy"}
    )
    (found,) = [one for one in findings_of(unread) if not one.well]
    assert found.sentence.startswith("the steering table cannot be read: nft cannot list the table: busy")
    assert "start the agent" not in found.mend
    assert "is not loaded" in wrong(steering=False, steered_to=None)["steering"]


def test_a_tunnel_through_which_nothing_comes_back_is_not_blamed_on_rules_that_nobody_read() -> None:
    tried = (TriedTunnel(slot="a", let_in=True, small=(4, 0), full=(0, 0), mtu=1400),)
    assert "no rule translates" in wrong(tried=tried, translates=False)["tunnel a"]
    assert "could not be read" in wrong(tried=tried, translates=None)["tunnel a"]


def test_a_test_that_the_probe_of_a_daemon_does_not_make_is_shown_as_not_made() -> None:
    """OpenVPN and strongSwan: packets of full size are not sent, and DNS servers are not read."""
    tried = TriedTunnel(slot="a", let_in=True, small=(5, 5), dns=None)
    assert wrong(tried=(tried,)) == {}
    untested = [
        one.about for one in findings_of(HEALTHY.model_copy(update={"tried": (tried,)})) if not one.tested
    ]
    assert untested == ["packet size a", "DNS a"]


def test_a_tunnel_through_which_nothing_passes_has_no_size_of_packets_that_is_well() -> None:
    tried = TriedTunnel(slot="a", let_in=True, small=(5, 0))
    assert "nothing small passes either" in wrong(tried=(tried,))["packet size a"]


def test_rules_that_are_made_for_one_slot_alone_are_wrong_by_their_names() -> None:
    assert wrong(uncovered=("`-s 10.8.0.0/24 -j ACCEPT`",)) == {"slots' rules": "`-s 10.8.0.0/24 -j ACCEPT`"}


FLUSHING = "#!/usr/sbin/nft -f\n\nflush ruleset\n\ntable inet filter {\n}\n"


@pytest.mark.parametrize(
    ("rules", "enabled", "flushing"),
    [
        pytest.param(FLUSHING, True, True, id="as Debian has it"),
        pytest.param("flush  ruleset inet # all\n", True, True, id="of one family"),
        pytest.param("table ip a { }; flush ruleset\n", True, True, id="behind something else"),
        pytest.param(
            "# flush ruleset\ntable inet filter\ndelete table inet filter\n", True, False, id="its own"
        ),
        pytest.param(FLUSHING, False, None, id="not enabled"),
        pytest.param(None, True, None, id="no file"),
    ],
)
def test_rules_of_the_host_whose_reload_removes_the_steering_table_are_named(
    rules: str | None, enabled: bool, flushing: bool | None, tmp_path: Path
) -> None:
    """Debian's file begins so; a reload cut users' TCP connections, and no page said it before."""
    file, wants = tmp_path / "nftables.conf", tmp_path / "units/sysinit.target.wants"
    wants.mkdir(parents=True)
    if rules is not None:
        file.write_text(rules)
    if enabled:
        (wants / "nftables.service").symlink_to("/lib/systemd/system/nftables.service")
    assert flushes(file, tmp_path / "units") is flushing
    assert ("rules' reload" in wrong(flushes=flushing)) is bool(flushing)
    told = [one.about for one in findings_of(HEALTHY.model_copy(update={"flushes": flushing}))]
    assert ("rules' reload" in told) is (flushing is not None)


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_a_table_of_connections_is_wrong_when_it_is_nearly_full(tracked: int, trackable: int) -> None:
    found = wrong(tracked=tracked, trackable=trackable)
    assert ("connections" in found) == (trackable > 0 and tracked >= trackable * 0.95)


def test_each_thing_that_is_wrong_says_what_to_do() -> None:
    facts = PathFacts(gateway="gw-1", ended=("a",), drops=("chain x drops",), misrouted=("10.0.0.0/24",))
    assert all(one.mend for one in findings_of(facts) if not one.well)


def test_rules_that_cannot_be_compared_are_shown_with_the_reason() -> None:
    said = wrong(uncovered=None, uncovered_unread="a rule of chain base asks for too much")["slots' rules"]
    assert said.endswith("is not known: a rule of chain base asks for too much")
