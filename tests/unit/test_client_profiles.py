"""Client profiles say how clients talk, and nothing that would have a gateway run or read something."""

from typing import Any

import pytest
from pydantic import ValidationError

from policies.model.client_profiles import words_of
from policies.model.fleet import Fleet
from policies.model.release_tests import Asked, Method, ReleaseTests
from tests.unit.fleets import gateway


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("data-ciphers AES-256-GCM:AES-128-GCM", ("data-ciphers", "AES-256-GCM:AES-128-GCM")),
        ("comp-lzo", ("comp-lzo",)),
        ("comp-lzo  no", ("comp-lzo", "no")),
        ("tls-auth shared 1", ("tls-auth", "shared", "1")),
        ("tls-crypt shared", ("tls-crypt", "shared")),
    ],
)
def test_an_option_that_says_how_a_client_talks_is_taken(option: str, words: tuple[str, ...]) -> None:
    assert words_of(option) == words
    assert ReleaseTests.model_validate({"profiles": {"one": [option]}}).profiles == {
        "one": (" ".join(words),)
    }


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("up /bin/sh", "`up /bin/sh` is no option of a client profile"),
        ("plugin x.so", "is no option of a client profile"),
        ("remote 192.0.2.1", "is no option of a client profile"),
        ("config more", "is no option of a client profile"),
        ("script-security 2", "is no option of a client profile"),
        ("--cipher none", "is no option of a client profile"),
        ("tls-auth /etc/shadow 1", "has '/etc/shadow'; write words of letters"),
        ("tls-auth ../shared 1", "has '../shared'; write words"),
        ("tls-auth shared 2", "has the direction 2; write 0 or 1"),
        ("cipher AES-256-CBC --up", "has '--up'; write words"),
        ("cipher", "has 0 values; write `cipher VALUE`"),
        ("cipher one two", "has 2 values; write `cipher VALUE`"),
        ("  ", "an option is empty; leave it out"),
    ],
)
def test_every_other_option_is_refused_with_what_to_write(option: str, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ReleaseTests.model_validate({"profiles": {"one": [option]}})
    assert said in str(refused.value)


def fleet_of(daemon: str, **tests: Any) -> Fleet:
    gateways = [{**gateway(f"gw-{number}").model_dump(), "daemon": daemon} for number in (1, 2)]
    return Fleet.model_validate({"name": "edge", "product": daemon, "gateways": gateways, "tests": tests})


def test_tests_that_are_not_made_of_its_daemon_are_refused_to_a_fleet() -> None:
    with pytest.raises(
        ValidationError, match=r"gateway gw-1 runs ocserv, of which there are no tests\.profiles"
    ):
        fleet_of("ocserv", profiles={"laptops": []})
    with pytest.raises(ValidationError, match=r"there are no tests\.names; leave them out"):
        fleet_of("openvpn", names={"outside": ["www.example.org"]})
    with pytest.raises(ValidationError, match=r"there are no tests\.load"):
        fleet_of("openvpn", load={"gateway": "gw-1"})
    settings = {"settings": {"dns": ["10.0.0.53"]}}
    told = fleet_of("openvpn").model_dump() | settings
    with pytest.raises(ValidationError, match="there are no settings"):
        Fleet.model_validate(told)
    found = fleet_of("openvpn", profiles={"laptops": []}).tests
    assert found is not None
    assert found.profiles == {"laptops": ()}


def test_all_that_a_daemon_has_not_is_said_at_once() -> None:
    with pytest.raises(
        ValidationError,
        match=r"gw-1 runs openvpn, of which there are no tests\.load, tests\.mirror, tests\.names;",
    ):
        fleet_of(
            "openvpn",
            names={"outside": ["www.example.org"]},
            load={"gateway": "gw-1"},
            mirror={"within": "2m"},
        )


@pytest.mark.parametrize("daemon", ["openvpn", "strongswan"])
def test_a_mirror_of_a_daemon_whose_logins_are_not_mirrored_is_refused_in_the_file(daemon: str) -> None:
    with pytest.raises(
        ValidationError, match=rf"runs {daemon}, of which there are no tests\.mirror; leave them out"
    ):
        of_ike(mirror={}) if daemon == "strongswan" else fleet_of(daemon, mirror={})


ITS_TESTS = "garbage, plain-http, null-cipher, wrong-password, full-size-lost, cleartext, routes"


def of_ike(**tests: Any) -> Fleet:
    slots = [
        {"name": name, "port": 500, "address": address, "device": f"ike{name}", "pool4": pool}
        for name, address, pool in (
            ("a", "10.255.0.1", "10.80.0.0/20"),
            ("b", "10.255.0.3", "10.80.16.0/20"),
        )
    ]
    one = {"name": "gw-1", "daemon": "strongswan", "port": 500, "addresses": ["192.0.2.11"], "slots": slots}
    return Fleet.model_validate({"name": "edge", "product": "strongswan", "gateways": [one], "tests": tests})


def test_a_fleet_of_strongswan_has_to_skip_the_tests_that_never_get_a_number() -> None:
    with pytest.raises(
        ValidationError,
        match=rf"gateway gw-1: strongswan has no test {ITS_TESTS}; write tests\.skip: \[{ITS_TESTS}\]",
    ):
        of_ike(patience="30m")
    with pytest.raises(
        ValidationError,
        match=r"has no test garbage, .*; write tests\.skip: \[routes, config, garbage, plain-",
    ):
        of_ike(skip=["routes", "config"])
    tests = of_ike(skip=ITS_TESTS.split(", ")).tests
    assert tests is not None
    assert tests.asked(Method.TRIED) == (Asked.FILES, Asked.CONFIG, Asked.LOGIN, Asked.PINGS_LOST)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("tls-cipher DEFAULT:@SECLEVEL=0", ("tls-cipher", "DEFAULT:@SECLEVEL=0")),
        ("tls-cipher ALL:!aNULL:+RC4", ("tls-cipher", "ALL:!aNULL:+RC4")),
        ("data-ciphers AES-256-GCM:?CHACHA20-POLY1305", ("data-ciphers", "AES-256-GCM:?CHACHA20-POLY1305")),
        ("tls-version-min 1.2 or-highest", ("tls-version-min", "1.2", "or-highest")),
        ("mssfix 1360 mtu", ("mssfix", "1360", "mtu")),
        ("ncp-disable", ("ncp-disable",)),
        ("providers legacy default", ("providers", "legacy", "default")),
        ('tls-auth "shared" 1 # as always', ("tls-auth", "shared", "1")),
    ],
)
def test_options_of_old_clients_are_taken_as_their_files_have_them(
    option: str, words: tuple[str, ...]
) -> None:
    """Case 28: `@SECLEVEL=0` is what lets the clients in at all that profiles are for."""
    assert words_of(option) == words


@pytest.mark.parametrize(
    "option", ["tls-cipher -up", "cipher a/b", "cipher 'a b'", "cipher 'open", "ca /etc/x"]
)
def test_no_value_begins_an_option_or_names_a_path(option: str) -> None:
    """Case 28: none of what is taken leads elsewhere."""
    with pytest.raises(ValueError, match=r"write words|No closing quotation"):
        words_of(option)
