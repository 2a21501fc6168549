"""Who is a session of a charon, of what `list-sas` tells in the words of a real one (5.9.8)."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest

from activities.drivers.daemon.strongswan.sessions import name_of, peers_in

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def association(**other: Any) -> dict[str, Any]:
    said = {
        "uniqueid": b"7",
        "version": b"2",
        "state": b"ESTABLISHED",
        "local-host": b"10.88.0.1",
        "local-port": b"4500",
        "local-id": b"10.77.0.1",
        "remote-host": b"10.77.0.11",
        "remote-port": b"4500",
        "remote-id": b"C=DE, O=Example, CN=alice",
        "initiator-spi": b"13e0debdad378c37",
        "established": b"14",
        "remote-vips": [b"10.90.0.2"],
        "child-sas": {"home-1": {"spi-in": b"a17ad981"}, "home-2": {"state": b"DELETED"}},
    }
    return said | {key.replace("_", "-"): value for key, value in other.items()}


def test_who_was_let_in_is_one_with_its_addresses_its_name_and_since_when() -> None:
    (peer,) = peers_in([association()], NOW)
    assert (peer.id, peer.name, peer.address, peer.port) == ("7", "alice", ip_address("10.77.0.11"), 4500)
    assert peer.numbers == (("ike_spi", 0x13E0DEBDAD378C37), ("esp_spi", 0xA17AD981))
    assert (peer.vpn_address, peer.since) == ("10.90.0.2", NOW - timedelta(seconds=14))


@pytest.mark.parametrize("state", [b"CONNECTING", b"CREATED", b"REKEYED", b"DELETING", b"DESTROYING"])
def test_who_is_still_asked_or_goes_is_none(state: bytes) -> None:
    assert peers_in([association(state=state)], NOW) == ()


def test_a_session_that_is_being_rekeyed_is_one_and_its_predecessor_is_none() -> None:
    both = [association(state=b"REKEYED"), association(uniqueid=b"8", state=b"REKEYING")]
    assert [peer.id for peer in peers_in(both, NOW)] == ["8"]


def test_a_site_brings_networks_of_its_own_and_has_no_address_in_the_tunnel() -> None:
    said = association(remote_id=b"berlin.example.org")
    del said["remote-vips"]
    (peer,) = peers_in([said], NOW)
    assert (peer.name, peer.vpn_address) == ("berlin.example.org", "")


def test_a_person_known_by_eap_has_that_name_and_not_that_of_the_device() -> None:
    (peer,) = peers_in([association(remote_eap_id=b"bob")], NOW)
    assert peer.name == "bob"


@pytest.mark.parametrize(
    "missing",
    ["uniqueid", "remote-host", "remote-port", "established", "state", "initiator-spi", "remote-id"],
)
def test_what_lacks_a_word_is_no_list_at_all(missing: str) -> None:
    said = association()
    del said[missing]
    with pytest.raises(KeyError):
        peers_in([said], NOW)


def test_what_is_no_number_is_no_list_at_all() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        peers_in([association(established=b"soon")], NOW)


@pytest.mark.parametrize(
    ("identity", "name"),
    [("CN=alice", "alice"), ("CN=alice, O=Example", "alice"), ("alice@example.org", "alice@example.org")],
)
def test_a_name_is_the_common_name_of_a_certificate_or_all_of_the_identity(identity: str, name: str) -> None:
    assert name_of(identity) == name


def test_a_peer_to_which_a_tunnel_was_refused_has_none() -> None:
    """newcomer 2: charon keeps the login; nobody comes back to it."""
    assert peers_in([association()], NOW)[0].has_tunnel
    assert not peers_in([association(**{"child-sas": {}})], NOW)[0].has_tunnel


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        ("C=DE, O=ACME, Inc., CN=Maier, Anna", "Maier, Anna"),
        ("C=DE, CN=Maier, Bert, E=bert@example.org", "Maier, Bert"),
        ("CN=anna, 2.5.4.97=NTRDE", "anna"),
        ("CN=anna, OU=a, b", "anna"),
        ("DC=com, DC=corp, CN=Users, CN=anna", "anna"),
        ("CN=anna, CN=Users, DC=corp, DC=com", "anna"),
        ("anna@example.org", "anna@example.org"),
    ],
)
def test_users_whose_names_begin_alike_up_to_a_comma_are_two(identity: str, name: str) -> None:
    """R11, a fresh reader's F11: charon prints commas in a name as they are."""
    assert name_of(identity) == name
