"""Certificates by ACME, from a real Pebble: proved by HTTP and by DNS, killed at any step."""

import base64
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from acme.challenges import HTTP01
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from josepy.jwk import JWKRSA

from activities.drivers.certificate.shown import ShownOverHttp
from deploy.ports import free_port
from policies.model.errors import BadInput, Refused, Unavailable
from tests.drivers import pebble
from tests.drivers.certificates import NAME, CertifiedHost
from tests.drivers.dying_renewal import BEFORE_IT_COUNTS, OF_AN_ORDER, WHEN_IT_COUNTS
from tests.drivers.pebble import BLOCKED, Pebble
from tests.patience import PATIENCE

HOOK = """#!{python}
import json, sys, urllib.request
what, name, value = sys.argv[1:]
said = {{"host": name + ".", "value": value}}
verb = "set-txt" if what == "present" else "clear-txt"
urllib.request.urlopen("{place}/" + verb, json.dumps(said).encode()).close()
open("{told}", "a").write(what + " " + name + chr(10))
"""


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """Pebble itself; without a network at first use there is none."""
    if (missing := pebble.why_not_here()) is not None:
        pytest.skip(missing)


@pytest.fixture(scope="module")
def authority(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    with Pebble(tmp_path_factory.mktemp("acme") / "pebble").running() as found:
        yield found


def host_of(authority: Pebble, folder: Path, name: str = NAME, **more: object) -> CertifiedHost:
    shown = (
        {"dns_hook": str(more["dns_hook"])} if "dns_hook" in more else {"http_port": authority.ports["http"]}
    )
    acme = {"directory": authority.directory, "authority": str(authority.authority)} | shown | more
    return CertifiedHost(folder, {"acme": acme}, authority.roots, name)


def hook_of(authority: Pebble, folder: Path) -> Path:
    """A program of the operator's that writes to the DNS server, as one for a provider's API does."""
    hook, place = folder / "hook", f"http://127.0.0.1:{authority.ports['records']}"
    hook.write_text(HOOK.format(python=sys.executable, place=place, told=folder / "told"))
    hook.chmod(0o700)
    return hook


def named_in(certificate: x509.Certificate) -> list[str]:
    said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return said.get_values_for_type(x509.DNSName)


def test_a_host_proves_its_name_by_http_and_each_certificate_has_a_key_of_its_own(
    authority: Pebble, tmp_path: Path
) -> None:
    host = host_of(authority, tmp_path, contact="vpn@penstock.test")
    host.renewal.renew()
    first = host.leaf
    assert named_in(first) == [NAME]
    assert (host.is_due(), host.is_due(days=23)) == (False, True)
    assert host.left() == ["account.pem"]
    account = host.settings.certificate_folder / "account.pem"
    assert account.stat().st_mode & 0o777 == 0o600
    kept = account.read_bytes()
    host.renewal.renew()
    assert host.leaf.public_key() != first.public_key()
    assert account.read_bytes() == kept


def test_a_name_that_many_gateways_share_is_proved_by_a_program_that_writes_to_dns(
    authority: Pebble, tmp_path: Path
) -> None:
    host = host_of(authority, tmp_path, f"*.{NAME}", dns_hook=str(hook_of(authority, tmp_path)))
    host.renewal.renew()
    assert named_in(host.leaf) == [f"*.{NAME}"]
    record = f"_acme-challenge.{NAME}"
    assert (tmp_path / "told").read_text().splitlines() == [f"present {record}", f"clean {record}"]


def killed_and_repeated(authority: Pebble, folder: Path, line: str) -> int:
    """Kill the second renewal there, and repeat; return how many orders both took."""
    host = host_of(authority, folder)
    host.renewal.renew()
    old, orders = host.leaf, authority.orders
    host.killed_at(line)
    counts = line in WHEN_IT_COUNTS
    assert (host.leaf != old) == counts
    if not counts:
        host.renewal.renew()
    found, new = authority.orders - orders, host.leaf
    if counts:  # what was pending is done with, and never used for the one after
        host.renewal.renew()
        assert host.leaf.public_key() != new.public_key()
    assert new.public_key() != old.public_key()
    assert host.left() == ["account.pem"]
    return found


@pytest.mark.sweep
def test_killed_between_the_order_and_its_certificate_the_repeat_takes_what_was_ordered(
    authority: Pebble, tmp_path: Path
) -> None:
    assert killed_and_repeated(authority, tmp_path, "finalized") == 1


@pytest.mark.sweep
@pytest.mark.parametrize("line", [*OF_AN_ORDER, "finalized", *BEFORE_IT_COUNTS, *WHEN_IT_COUNTS])
def test_killed_at_any_step_one_good_certificate_and_one_order_come_of_it(
    authority: Pebble, tmp_path: Path, line: str
) -> None:
    assert killed_and_repeated(authority, tmp_path, line) == 1


@pytest.mark.sweep
def test_an_order_that_the_authority_has_forgotten_is_made_anew(tmp_path: Path) -> None:
    forgetful = Pebble(tmp_path / "pebble")
    with forgetful.running():
        host = host_of(forgetful, tmp_path)
        host.killed_at("ordered")
    with pytest.raises(Unavailable, match="does not answer as ACME says"):
        host.renewal.renew()
    assert host.left() == ["account.pem", "pending"]
    with forgetful.running():
        host.renewal.renew()
    assert named_in(host.leaf) == [NAME]


def test_an_authority_that_serves_its_customers_alone_is_shown_whose_host_it_is(tmp_path: Path) -> None:
    shared = base64.urlsafe_b64encode(b"k" * 32).decode().rstrip("=")
    key = tmp_path / "eab.key"
    key.write_text(f"{shared}\n")
    key.chmod(0o600)
    with Pebble(tmp_path / "pebble", customers={"key-1": shared}).running() as authority:
        with pytest.raises(Refused, match=r"gives no certificate: .*'externalAccountBinding'"):
            host_of(authority, tmp_path).renewal.renew()
        bound = {"name": "key-1", "key": f"file:{key}"}
        host = host_of(authority, tmp_path, external_account=bound)
        host.renewal.renew()
        assert named_in(host.leaf) == [NAME]


def test_what_an_authority_refuses_or_cannot_see_is_named_and_leaves_the_old_one(
    authority: Pebble, tmp_path: Path
) -> None:
    host = host_of(authority, tmp_path)
    host.renewal.renew()
    old = host.leaf
    blocked = host_of(authority, tmp_path, BLOCKED)
    with pytest.raises(Refused, match=r"gives no certificate: .*blocked"):
        blocked.renewal.renew()
    elsewhere = free_port()
    unseen = host_of(authority, tmp_path, "unseen.penstock.test", http_port=elsewhere)
    with pytest.raises(Refused, match=r"could not see whose the names are: unseen.penstock.test: "):
        unseen.renewal.renew()
    source = {"directory": authority.directory, "authority": str(authority.roots), "http_port": 80}
    strange = CertifiedHost(tmp_path, {"acme": source}, authority.roots)
    with pytest.raises(BadInput, match="by no trusted authority"):
        strange.renewal.renew()
    hook = tmp_path / "broken"
    hook.write_text("#!/bin/sh\necho no such zone >&2\nexit 1\n")
    hook.chmod(0o700)
    failing = host_of(authority, tmp_path, "fresh.penstock.test", dns_hook=str(hook))
    with pytest.raises(Unavailable, match=r"has failed to present _acme-challenge.fresh.*: no such zone"):
        failing.renewal.renew()
    assert host.leaf == old


def test_a_port_that_somebody_has_is_named(authority: Pebble, tmp_path: Path) -> None:
    with socket.create_server(("", 0), family=socket.AF_INET) as taken:
        port = taken.getsockname()[1]
        host = host_of(authority, tmp_path, "taken.penstock.test", http_port=port)
        with pytest.raises(BadInput, match=f"nobody can answer at port {port} of this host"):
            host.renewal.renew()


def test_strangers_who_say_nothing_keep_no_authority_from_its_answer() -> None:
    key = JWKRSA(key=rsa.generate_private_key(65537, 2048))
    port, challenge = free_port(), HTTP01(token=b"t" * 32)
    with ShownOverHttp(port).showing([(NAME, challenge, key)]):
        strangers = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
        for where in ("127.0.0.1", "[::1]"):
            with urlopen(f"http://{where}:{port}{challenge.path}", timeout=PATIENCE) as answer:
                assert answer.read() == challenge.validation(key).encode()
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"http://127.0.0.1:{port}/etc/passwd", timeout=PATIENCE)
        for one in strangers:
            one.close()
    with pytest.raises(OSError, match="refused"):
        urlopen(f"http://127.0.0.1:{port}{challenge.path}", timeout=2)
