"""Releases on their real path: built, signed by a private signer, served, fetched, verified, unpacked."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from activities.drivers.trust_files import compose_releases
from activities.releases import Releases
from deploy.lab.releases import LabReleases
from deploy.lab.repository import RepositoryServer
from policies.words.refusals import DigestMismatch, SignatureMissing, SignerNotAllowed, ThresholdNotMet
from tests.fakes.trees import small_tree


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabReleases]:
    root = tmp_path / "repository"
    root.mkdir()
    server = RepositoryServer(("127.0.0.1", 0), root)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield LabReleases(tmp_path / "lab", root, server.url, product="ocserv-gw")
    server.shutdown()
    server.server_close()


@pytest.fixture
def releases(lab: LabReleases, tmp_path: Path) -> Releases:
    return compose_releases(tmp_path / "store", lab.trust_policy, product="ocserv-gw", channel="stable")


def stored(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "store").glob("sha256/**/*") if path.is_file()]


async def test_a_release_signed_by_two_people_is_admitted_and_unpacked(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    tree, template = small_tree(tmp_path)
    digest = lab.publish(tree, template, version="1.3.0", rollback_index=1)
    admitted = await releases.admit(digest, lab.url)
    await releases.unpack(admitted, tmp_path / "gateway")
    assert admitted.signers == (
        "builder: build@lab.penstock.example (https://idp.lab.penstock.example)",
        "release_manager: manager@lab.penstock.example (https://idp.lab.penstock.example)",
    )
    assert (tmp_path / "gateway/root/usr/sbin/ocserv").read_bytes() == (tree / "usr/sbin/ocserv").read_bytes()
    assert (tmp_path / "gateway/config/ocserv.conf.template").read_text() == template.read_text()
    assert (tmp_path / "gateway/root/usr/lib/libexample.so").readlink() == Path("libexample.so.1")
    assert admitted.reference.digest == digest


async def test_a_tampered_artifact_is_refused(lab: LabReleases, releases: Releases, tmp_path: Path) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1)
    largest = max(
        (lab.root / "blobs").glob("**/*"), key=lambda path: path.stat().st_size if path.is_file() else 0
    )
    content = bytearray(largest.read_bytes())
    content[700] ^= 1
    largest.write_bytes(content)
    with pytest.raises(DigestMismatch):
        await releases.admit(digest, lab.url)
    assert not stored(tmp_path) or all(path.name != largest.name for path in stored(tmp_path))


async def test_a_wrong_signer_is_refused(lab: LabReleases, releases: Releases, tmp_path: Path) -> None:
    signers = [("mallory@lab.penstock.example", lab.issuer)]
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1, signers=signers)
    with pytest.raises(SignerNotAllowed):
        await releases.admit(digest, lab.url)
    assert not stored(tmp_path)


async def test_a_missing_bundle_is_refused(lab: LabReleases, releases: Releases, tmp_path: Path) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1, signers=[])
    with pytest.raises(SignatureMissing):
        await releases.admit(digest, lab.url)
    assert not stored(tmp_path)


async def test_one_signer_of_two_is_not_enough(lab: LabReleases, releases: Releases, tmp_path: Path) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1, signers=[lab.builder])
    with pytest.raises(ThresholdNotMet):
        await releases.admit(digest, lab.url)
    assert not stored(tmp_path)
