"""Certificates by the PKI of a Vault, whose API is a fake here: the key stays on the host."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from policies.model.errors import BadInput, Refused, Unavailable
from tests.drivers.certificates import NAME, CertifiedHost
from tests.fakes.vault import TOKEN, FakeVault


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[FakeVault]:
    with FakeVault(tmp_path / "vault").running() as found:
        yield found


def host_of(vault: FakeVault, folder: Path, name: str = NAME, **more: str) -> CertifiedHost:
    said = {"address": vault.address, "path": "pki/sign/vpn", "token": f"file:{vault.token}"}
    source = {"vault": {**said, "authority": str(vault.tls.roots), **more}}
    return CertifiedHost(folder, source, vault.corp.roots, name)


@pytest.mark.parametrize("name", [NAME, "192.0.2.11"])
def test_it_signs_for_a_key_that_was_made_on_the_host(vault: FakeVault, tmp_path: Path, name: str) -> None:
    host = host_of(vault, tmp_path, name)
    host.renewal.renew()
    first = host.leaf
    host.renewal.renew()
    assert host.leaf.public_key() != first.public_key()
    assert host.left() == []
    assert "PRIVATE" not in str(vault.asked)
    said = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one.value) for one in said] == [name]


def test_killed_after_its_answer_the_repeat_asks_for_the_same_key(vault: FakeVault, tmp_path: Path) -> None:
    host = host_of(vault, tmp_path)
    host.renewal.renew()
    old = host.leaf
    host.killed_at("proposed")
    assert host.leaf == old
    host.renewal.renew()
    keys = [x509.load_pem_x509_csr(asked["csr"].encode()).public_key() for asked in vault.asked]
    assert keys[0] != keys[1] == keys[2] == host.leaf.public_key()


def test_one_that_is_sealed_is_asked_again_for_the_same_key(vault: FakeVault, tmp_path: Path) -> None:
    host = host_of(vault, tmp_path)
    vault.sealed = True
    with pytest.raises(Unavailable, match="answers 503: Vault is sealed"):
        host.renewal.renew()
    kept = host.renewal._folder.pending.key()
    vault.sealed = False
    host.renewal.renew()
    assert (host.current / "key.pem").read_bytes() == kept


def test_what_it_denies_or_signs_wrongly_changes_nothing(vault: FakeVault, tmp_path: Path) -> None:
    host = host_of(vault, tmp_path)
    host.renewal.renew()
    old = host.leaf
    vault.of_another_key = True
    with pytest.raises(Refused, match="the key that came is another certificate's"):
        host.renewal.renew()
    with pytest.raises(Refused, match=r"does not sign by other/sign/vpn: unsupported path"):
        host_of(vault, tmp_path, path="other/sign/vpn").renewal.renew()
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        host_of(vault, tmp_path, authority=str(vault.corp.roots)).renewal.renew()
    vault.token.write_text("another\n")
    with pytest.raises(Refused, match="permission denied") as denied:
        host.renewal.renew()
    assert "another" not in str(denied.value)
    assert TOKEN not in str(denied.value)
    vault.token.chmod(0o644)
    with pytest.raises(BadInput, match="may be read by others"):
        host.renewal.renew()
    assert host.leaf == old
