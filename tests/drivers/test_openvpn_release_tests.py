"""Release tests of a real OpenVPN: what spoils a release is found by its test, and by no other."""

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from deploy.lab.spoiled import LIBRARY, PRELOAD, Spoiled, SpoiledOpenVpn, spoil
from policies.exposure import exposure, findings_of
from policies.model.release_tests import Method, Outcome, ReleaseTests
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_openvpn, openvpn  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import operation
from tests.drivers.openvpn_lab import TEMPLATE, OpenVpnLab, why_not_here

pytestmark = [
    *ON_A_REAL_GATEWAY,
    pytest.mark.skipif(why_not_here() is not None, reason=why_not_here() or ""),
    pytest.mark.skipif(not shutil.which("cc"), reason="needs cc"),
]
TODAY: tuple[str, ...] = ()
CBC = ("data-ciphers AES-256-CBC",)
PROFILES = {"today": TODAY, "phones-2019": CBC}


@pytest.fixture(autouse=True)
def _a_good_release(built_openvpn: OpenVpnLab) -> Iterator[None]:  # noqa: F811
    yield
    built_openvpn.admission.template.write_text(TEMPLATE.read_text())
    built_openvpn.options, built_openvpn.files = (), {}
    for path in (LIBRARY, PRELOAD):
        (built_openvpn.admission.tree / path).unlink(missing_ok=True)


def says(lab: OpenVpnLab, *lines: str, without: str = "") -> None:
    """Have the next release say more in its template, and leave out the lines that begin so."""
    kept = [line for line in TEMPLATE.read_text().splitlines() if not without or not line.startswith(without)]
    lab.admission.template.write_text("\n".join((*kept, *lines)) + "\n")


def static_key(lab: OpenVpnLab, name: str) -> None:
    subprocess.run(["openvpn", "--genkey", "secret", f"{lab.folder}/{name}"], check=True)


async def failed(lab: OpenVpnLab, **profiles: tuple[str, ...]) -> dict[str, str]:
    """Run the release, test it, and return the tests that it does not pass."""
    tests = ReleaseTests(profiles={name.replace("_", "-"): options for name, options in profiles.items()})
    slot = await lab.running("1")
    measured = await lab.slots.inspect(operation("inspect"), slot, None, tests.profiles)
    findings = findings_of(tests, measured, Method.TRIED)
    if all(one.outcome is Outcome.PASSED for one in findings):
        assert exposure(findings).outcome is Outcome.PASSED
    assert not [one for one in findings if one.outcome is Outcome.UNKNOWN], findings
    assert await lab.sessions.count(slot) == 0
    return {one.test: one.said for one in findings if one.outcome is Outcome.FAILED}


@pytest.mark.sweep
async def test_a_good_release_passes_every_test_with_every_profile(openvpn: OpenVpnLab) -> None:  # noqa: F811
    says(openvpn, "data-ciphers AES-256-GCM:AES-256-CBC", "compress migrate")
    assert await failed(openvpn, today=TODAY, phones_2019=CBC, laptops=("comp-lzo no",)) == {}


@pytest.mark.sweep
async def test_a_good_release_that_users_reach_by_tcp_passes_every_test(openvpn: OpenVpnLab) -> None:  # noqa: F811
    kept = [
        line
        for line in TEMPLATE.read_text().splitlines()
        if not line.startswith(("proto", "multihome", "explicit"))
    ]
    openvpn.admission.template.write_text(
        "\n".join((*kept, "proto tcp-server", "data-ciphers AES-256-GCM:AES-256-CBC")) + "\n"
    )
    assert await failed(openvpn, today=TODAY, phones_2019=CBC) == {}
    slot = await openvpn.running("1")
    probe = await openvpn.slots.probe(slot)
    assert probe.passed, probe.reason


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("how", "test"),
    [
        (SpoiledOpenVpn.TAKES_ANY_CERTIFICATE, "wrong-password"),
        (Spoiled.LOSES_LARGE_PACKETS, "full-size-lost"),
    ],
)
async def test_a_spoiled_release_is_found(
    openvpn: OpenVpnLab,  # noqa: F811
    how: Spoiled | SpoiledOpenVpn,
    test: str,
) -> None:
    spoil(openvpn.admission.tree, how)
    assert list(await failed(openvpn)) == [test]


@pytest.mark.sweep
async def test_a_release_that_ends_by_garbage_is_found_though_nothing_else_of_it_can_be_tested_then(
    openvpn: OpenVpnLab,  # noqa: F811
) -> None:
    spoil(openvpn.admission.tree, SpoiledOpenVpn.DIES_OF_GARBAGE)
    slot = await openvpn.running("1")
    measured = await openvpn.slots.inspect(operation("inspect"), slot)
    found = exposure(findings_of(ReleaseTests(), measured, Method.TRIED))
    assert found.outcome is Outcome.FAILED
    assert (
        "garbage (1, at most 0): 8 packets of 1200 bytes of garbage were sent by udp; then it was no process"
        in (found.sentence)
    )


@pytest.mark.sweep
async def test_a_release_that_forwards_in_the_clear_is_found(openvpn: OpenVpnLab) -> None:  # noqa: F811
    says(openvpn, "data-ciphers AES-256-GCM:none")
    found = await failed(openvpn, bare=("data-ciphers none",))
    assert sorted(found) == ["cleartext", "null-cipher"]
    assert "packets lay open" in found["cleartext"]


@pytest.mark.sweep
async def test_a_release_that_pushes_a_route_that_its_config_does_not_say_is_found(
    openvpn: OpenVpnLab,  # noqa: F811
) -> None:
    (openvpn.folder / "more").touch(mode=0o600)
    (openvpn.folder / "more").write_text('push "route 10.98.0.0 255.255.0.0"\n')
    openvpn.compose(more="more")
    says(openvpn, "config $credential_more")
    found = await failed(openvpn)
    assert found == {"routes": "2 routes were pushed, and these differ: 10.98.0.0/16"}


@pytest.mark.sweep
async def test_a_route_to_a_host_name_that_a_release_pushes_is_compared_and_named(
    openvpn: OpenVpnLab,  # noqa: F811
) -> None:
    """Clients of OpenVPN 2.6 say that such a route "must be a valid address", and leave it out."""
    (openvpn.folder / "more").touch(mode=0o600)
    (openvpn.folder / "more").write_text('push "route vpn.example 255.255.255.255"\n')
    openvpn.compose(more="more")
    says(openvpn, "config $credential_more")
    assert await failed(openvpn) == {
        "routes": "2 routes were pushed, and these differ: vpn.example; clients take no route to what is no "
        "network: vpn.example"
    }


@pytest.mark.sweep
async def test_the_route_to_its_own_pool_that_openvpn_pushes_by_itself_is_no_difference(
    openvpn: OpenVpnLab,  # noqa: F811
) -> None:
    says(openvpn, "topology net30", without="topology")
    assert await failed(openvpn) == {}


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("line", "profile", "words"),
    [
        ("data-ciphers AES-256-GCM", CBC, "is refused: AUTH"),
        ("compress stub-v2", ("comp-lzo no",), "pings comes back: Bad compression stub decompression header"),
        ("", ("comp-lzo yes",), "pings comes back: Bad LZO decompression header"),
        ("", ("tls-auth shared 1",), "gets no answer: look at tls-auth and tls-crypt"),
        ("tls-version-min 1.3", ("tls-version-max 1.2",), "is refused"),
    ],
    ids=["cipher", "compression", "lzo", "tls-auth", "tls-version"],
)
async def test_a_release_that_refuses_an_existing_client_is_found_and_the_client_named(
    openvpn: OpenVpnLab,  # noqa: F811
    line: str,
    profile: tuple[str, ...],
    words: str,
) -> None:
    static_key(openvpn, "shared")
    openvpn.files = {"shared": openvpn.folder / "shared"}
    openvpn.compose()
    says(openvpn, line)
    found = await failed(openvpn, today=TODAY, laptops=profile)
    assert list(found) == ["profiles"]
    assert found["profiles"].startswith("laptops ")
    assert words in found["profiles"]
    assert "today" not in found["profiles"]


@pytest.mark.sweep
async def test_a_profile_that_this_host_cannot_try_says_nothing_about_the_release(
    openvpn: OpenVpnLab,  # noqa: F811
) -> None:
    slot = await openvpn.running("1")
    for profile, words in (
        (("data-ciphers BF-CBC",), "cannot be such a client"),
        (("tls-crypt lost",), "name lost under probe.files in agent.yaml"),
        (("up /bin/true",), "is no option of a client profile"),
    ):
        measured = await openvpn.slots.inspect(operation("inspect"), slot, None, {"old": profile})
        [found] = [one for one in measured if one.test == "profiles"]
        assert found.measured is None
        assert words in found.said


@pytest.mark.sweep
async def test_a_gateway_with_a_shared_key_is_probed_by_a_client_that_has_it(openvpn: OpenVpnLab) -> None:  # noqa: F811
    static_key(openvpn, "shared")
    openvpn.options, openvpn.files = ("tls-crypt shared",), {"shared": openvpn.folder / "shared"}
    openvpn.compose(shared="shared")
    says(openvpn, "tls-crypt $credential_shared")
    slot = await openvpn.running("1")
    probe = await openvpn.slots.probe(slot)
    assert probe.passed, probe.reason


@pytest.mark.sweep
async def test_a_profile_whose_tunnel_carries_nothing_is_told_by_the_line_that_matters(
    openvpn: OpenVpnLab,  # noqa: F811
) -> None:
    """Newcomer 12: the quoted line was a note about `--cipher`; the profile lacked `auth SHA256`."""
    says(openvpn, "data-ciphers AES-256-GCM:AES-128-CBC", "auth SHA256")
    found = await failed(openvpn, today=TODAY, old_phones=("data-ciphers AES-128-CBC",))
    assert list(found) == ["profiles"]
    assert "packet HMAC authentication failed; compare its `auth` with the template's" in found["profiles"]
    assert "Note" not in found["profiles"]
