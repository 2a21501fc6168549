"""Releases from an OCI registry: Debian's real one, and a fake with what the real one lacks."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from activities.drivers.trust_files import compose_releases
from activities.releases import Releases
from deploy.lab.registry import Registry
from deploy.lab.releases import LabReleases
from policies.words.refusals import DigestMismatch, SignatureMissing, SubjectMismatch, TransportRefused
from tests.fakes.registry import TOKEN, FakeRegistry
from tests.fakes.trees import small_tree


class Setting:
    """A lab whose releases lie in a registry."""

    def __init__(self, folder: Path, base: str, *allow: str, credential: str | None = None) -> None:
        self.folder, self.base = folder, base
        self.lab = LabReleases(folder / "lab", folder / "repository", base, product="ocserv-gw")
        self.lab.write_policy(allow=[base, *allow], credential=credential)
        self.registry = Registry(base, "vpn/ocserv")
        self.source = f"oci+{base}/vpn/ocserv"

    def publish(self, *, marker: bytes = b"", rollback_index: int = 1) -> str:
        tree = small_tree(self.folder, marker=marker)
        digest = self.lab.publish(*tree, version=f"1.{rollback_index}", rollback_index=rollback_index)
        self.registry.push_release(self.lab.root, digest)
        self.registry.push_index(self.lab.root, "ocserv-gw", "stable")
        return digest

    def releases(self, store: str = "store") -> Releases:
        policy = self.lab.trust_policy
        return compose_releases(self.folder / store, policy, product="ocserv-gw", channel="stable")


@pytest.fixture(scope="module")
def debian_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed: apt-get install docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'data'}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}', secret: lab}}\n"
        "log: {level: error}\n"
    )
    with subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as registry:
        url = f"http://127.0.0.1:{port}"
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            try:
                httpx.get(f"{url}/v2/", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url
        registry.terminate()


async def test_debians_registry_delivers_by_the_fallback_tag(debian_registry: str, tmp_path: Path) -> None:
    setting = Setting(tmp_path, debian_registry)
    digest = setting.publish()
    releases = setting.releases()
    admitted = await releases.admit(digest, setting.source)
    await releases.unpack(admitted, tmp_path / "gateway")
    assert len(admitted.signers) == 2
    assert (tmp_path / "gateway/root/usr/sbin/ocserv").is_file()


async def test_a_registry_with_the_referrers_api_needs_no_fallback_tag(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        registry.tags = {tag: to for tag, to in registry.tags.items() if not tag.startswith("sha256-")}
        assert (await setting.releases().admit(digest, setting.source)).reference.digest == digest


async def test_a_release_without_referrers_is_not_signed(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        registry.manifests = {d: m for d, m in registry.manifests.items() if b'"subject"' not in m}
        with pytest.raises(SignatureMissing):
            await setting.releases().admit(digest, setting.source)


async def test_a_registry_that_lies_about_a_digest_is_refused(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        registry.lies[f"statement-{digest[7:]}"] = "sha256:" + "0" * 64
        with pytest.raises(DigestMismatch):
            await setting.releases().admit(digest, setting.source)


async def test_a_blob_the_registry_altered_is_refused(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        largest = max(registry.blobs, key=lambda name: len(registry.blobs[name]))
        registry.blobs[largest] = registry.blobs[largest][:-1] + b"x"
        with pytest.raises(DigestMismatch):
            await setting.releases().admit(digest, setting.source)


async def test_a_token_is_fetched_where_allowed_and_sent_to_its_registry_only(
    tmp_path: Path,
) -> None:
    secret = tmp_path / "login"
    secret.write_text("penstock:hunter2")
    with FakeRegistry() as tokens, FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url, tokens.url, credential=f"file:{secret}")
        digest = setting.publish()
        registry.realm = f"{tokens.url}/token"
        registry.authorizations.clear()
        assert (await setting.releases().admit(digest, setting.source)).reference.digest == digest
        assert set(registry.authorizations) == {"", f"Bearer {TOKEN}"}
        assert all(authorization.startswith("Basic ") for authorization in tokens.authorizations)


async def test_a_token_service_on_another_host_is_not_asked(tmp_path: Path) -> None:
    with FakeRegistry() as tokens, FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        registry.realm = f"{tokens.url}/token"
        with pytest.raises(TransportRefused):
            await setting.releases().admit(digest, setting.source)
        assert not tokens.authorizations


async def test_a_tag_that_moved_does_not_change_what_was_approved(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        approved = setting.publish(marker=b"one")
        later = setting.publish(marker=b"two", rollback_index=2)
        registry.tags[f"statement-{approved[7:]}"] = registry.tags[f"statement-{later[7:]}"]
        releases = setting.releases()
        with pytest.raises(SubjectMismatch):
            await releases.admit(approved, setting.source)
