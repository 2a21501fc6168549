"""Releases from an OCI registry: a real one, and a fake with what the real one lacks."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from activities.drivers.source.http import HttpSource
from activities.drivers.source.oci import SIGNATURE_TYPES, OciSource
from activities.drivers.source.transport import Transport
from activities.drivers.store.blobs import BlobStore
from activities.drivers.trust_files import compose_releases
from activities.refusals import (
    DownloadFailed,
    TransportRefused,
)
from activities.releases import Releases
from deploy.lab.releases import LabReleases
from orchestrator.publishing.folder import add_signature
from orchestrator.publishing.registry import Registry
from policies.model.errors import Refused
from policies.model.origin import origin_of
from policies.model.refusals import (
    DigestMismatch,
    ManifestInvalid,
    SignatureMissing,
    SubjectMismatch,
    TrustError,
)
from policies.model.trust import Envelope
from policies.model.value import digest_of
from policies.trust.images import IMAGE_INDEX, IMAGE_MANIFEST, Image
from tests.drivers import registries
from tests.fakes.hostile import HostileServer, Peer, Request, blob_server
from tests.fakes.registry import TOKEN, FakeRegistry
from tests.fakes.trees import small_tree


class Setting:
    """A lab whose releases lie in a registry."""

    def __init__(
        self, folder: Path, base: str, *allow: str, credentials: dict[str, str] | None = None
    ) -> None:
        self.folder, self.base = folder, base
        self.lab = LabReleases(folder / "lab", folder / "repository", base, product="ocserv-gw")
        self.lab.write_policy(allow=[base, *allow], credentials=credentials)
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
def real_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = registries.installed()
    if program is None:
        pytest.skip(registries.MISSING)
    with registries.registry(program, tmp_path_factory.mktemp("registry")) as url:
        yield url


async def test_a_real_registry_delivers_by_the_fallback_tag(real_registry: str, tmp_path: Path) -> None:
    setting = Setting(tmp_path, real_registry)
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


def index_of(*entries: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": entries}).encode()


NO_SIGNATURES = (b"[]", b'{"layers": []}')
FOREIGN = {"mediaType": IMAGE_MANIFEST, "digest": "sha512:" + "a" * 128, "size": 1, "artifactType": "x/y"}


@pytest.mark.parametrize(
    "answer",
    [
        *((status, b"{}") for status in (400, 403, 404, 405, 501)),
        (200, b"<html>sign in</html>"),
        (200, b"{}"),
        (200, b'{"schemaVersion": 2, "manifests": null}'),
        (200, index_of()),
        (200, index_of(FOREIGN)),
    ],
    ids=["400", "403", "404", "405", "501", "a page", "no index", "null", "empty", "foreign entries only"],
)
async def test_signatures_are_found_by_the_fallback_tag_where_the_api_lists_none(
    tmp_path: Path, answer: tuple[int, bytes]
) -> None:
    """Case 41, and the registries without the API that do not answer 404."""
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        registry.answers["referrers"] = answer
        assert len((await setting.releases().admit(digest, setting.source)).signers) == 2


@pytest.mark.parametrize("tag", ["the image itself", "forbidden"])
async def test_a_registry_without_any_listing_has_no_signatures(tmp_path: Path, tag: str) -> None:
    """Case 40: GitLab gives the image itself for the tag; Artifactory forbids a tag that is absent."""
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        subject = registry.tags[f"statement-{digest[7:]}"]
        image = registry.manifests[subject]
        registry.answers["referrers"] = (404, b"")
        registry.answers[subject.replace(":", "-")] = (
            (200, image) if tag == "the image itself" else (403, b"")
        )
        with pytest.raises(SignatureMissing):
            await setting.releases().admit(digest, setting.source)


async def test_a_registry_that_fails_is_asked_again_and_never_taken_for_one_without_signatures(
    tmp_path: Path,
) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        registry.answers["referrers"] = (500, b"")
        with pytest.raises(DownloadFailed, match="answers 500"):
            await setting.releases().admit(digest, setting.source)


@pytest.mark.parametrize(
    "stranger",
    [
        FOREIGN,
        {"digest": 7},
        "text",
        {**FOREIGN, "annotations": {"score": 1.5}},
        {
            "mediaType": IMAGE_MANIFEST,
            "artifactType": next(iter(SIGNATURE_TYPES)),
            "digest": digest_of(b"[]"),
        },
        {
            "mediaType": IMAGE_MANIFEST,
            "artifactType": next(iter(SIGNATURE_TYPES)),
            "digest": digest_of(b"deleted"),
        },
        {"mediaType": IMAGE_MANIFEST, "artifactType": 5, "digest": digest_of(b"[]")},
    ],
    ids=["sha512", "a number", "a text", "a fraction", "no manifest", "deleted", "a type that is a number"],
)
async def test_an_entry_of_another_program_beside_the_signatures_stops_no_release(
    tmp_path: Path, stranger: object
) -> None:
    """Case 44: one foreign referrer stopped every release of the repository; R11, a fresh reader's F13."""
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        registry.manifests |= {digest_of(content): content for content in NO_SIGNATURES}
        subject = registry.tags[f"statement-{digest[7:]}"]
        listing = json.loads(registry.referrers(subject))
        registry.answers[subject] = (200, index_of(stranger, *listing["manifests"]))
        assert len((await setting.releases().admit(digest, setting.source)).signers) == 2


async def test_signatures_on_every_page_of_a_listing_are_found(tmp_path: Path) -> None:
    """R11, a fresh reader's F13: only the first page was read."""
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        registry.tags = {tag: to for tag, to in registry.tags.items() if not tag.startswith("sha256-")}
        registry.pages = 1
        assert len((await setting.releases().admit(digest, setting.source)).signers) == 2
        _seventeen_signatures(registry, setting, digest)
        with pytest.raises(TransportRefused, match="has more than 16 pages"):
            await setting.releases("another").admit(digest, setting.source)


async def test_a_signature_that_is_listed_many_times_is_one(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        subject = registry.tags[f"statement-{digest[7:]}"]
        listing = json.loads(registry.referrers(subject))
        registry.answers[subject] = (200, index_of(*listing["manifests"] * 9))
        assert len((await setting.releases().admit(digest, setting.source)).signers) == 2
        store = BlobStore(tmp_path / "blobs")
        path = setting.lab.root / "signatures" / digest.replace(":", "/")
        listed = path.with_suffix(".json")
        listed.write_text(json.dumps(json.loads(listed.read_text()) * 9))
        assert len(await _from_folder(setting, digest, store)) == 2


@pytest.mark.parametrize("source", ["registry", "folder"])
async def test_what_helps_against_more_signatures_than_are_verified_is_named(
    tmp_path: Path, source: str
) -> None:
    """Whoever attaches them makes a release unusable: the refusal names the way out, not the limit alone."""
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        if source == "registry":
            _seventeen_signatures(registry, setting, digest)
            with pytest.raises(ManifestInvalid, match=r"^19 signatures .* at most 16 .*Delete .* who else"):
                await setting.releases().admit(digest, setting.source)
            return
        for number in range(17):
            add_signature(setting.lab.root, digest, "cms", b"%d" % number)
        with pytest.raises(ManifestInvalid, match=r"^19 signatures .* at most 16 .*--replace.* who else"):
            await _from_folder(setting, digest, BlobStore(tmp_path / "blobs"))


async def test_a_listing_without_artifact_types_leads_to_the_signatures(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        subject = registry.tags[f"statement-{digest[7:]}"]
        listing = json.loads(registry.referrers(subject))
        plain = [{k: v for k, v in entry.items() if k != "artifactType"} for entry in listing["manifests"]]
        registry.answers[subject] = (200, index_of(*plain))
        assert len((await setting.releases().admit(digest, setting.source)).signers) == 2


async def test_a_release_without_referrers_is_not_signed(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        registry.manifests = {d: m for d, m in registry.manifests.items() if b'"subject"' not in m}
        registry.tags = {tag: to for tag, to in registry.tags.items() if not tag.startswith("sha256-")}
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
    secret.chmod(0o600)
    with FakeRegistry() as tokens, FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url, tokens.url, credentials={tokens.url: f"file:{secret}"})
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


Damage = Callable[[FakeRegistry, Setting, str], None]


def _no_layers(registry: FakeRegistry, setting: Setting, digest: str) -> None:
    setting.registry.tag("channel-ocserv-gw-stable", json.dumps({"layers": []}).encode())


def _no_digest(registry: FakeRegistry, setting: Setting, digest: str) -> None:
    setting.registry.tag("channel-ocserv-gw-stable", json.dumps({"layers": [{"digest": "md5:1"}]}).encode())


def _no_manifest(registry: FakeRegistry, setting: Setting, digest: str) -> None:
    setting.registry.tag("channel-ocserv-gw-stable", b"[]")


def _seventeen_signatures(registry: FakeRegistry, setting: Setting, digest: str) -> None:
    referrer = next(content for content in registry.manifests.values() if b'"subject"' in content)
    for number in range(17):
        altered = referrer.replace(b'"schemaVersion": 2', b'"schemaVersion": 2, "number": %d' % number)
        registry.manifests[digest_of(altered)] = altered


@pytest.mark.parametrize(
    "damage",
    [_no_layers, _no_digest, _no_manifest, _seventeen_signatures],
    ids=lambda damage: damage.__name__,
)
async def test_a_listing_that_makes_no_sense_is_refused(tmp_path: Path, damage: Damage) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        damage(registry, setting, digest)
        with pytest.raises(ManifestInvalid):
            await setting.releases().admit(digest, setting.source)


async def test_a_release_larger_than_the_policy_allows_is_not_fetched(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish(marker=bytes(2 << 20))
        policy = json.loads(setting.lab.trust_policy.read_text())
        policy["sources"]["max_blob_mib"] = 1
        setting.lab.trust_policy.write_text(json.dumps(policy))
        for source in (setting.source, registry.url):
            with pytest.raises(TrustError):
                await setting.releases().admit(digest, source)


@pytest.mark.parametrize("challenge", ["Negotiate", 'Bearer service="x"', "Basic realm=x"])
async def test_a_challenge_nobody_can_answer_is_refused(tmp_path: Path, challenge: str) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        registry.realm, registry.challenges = "x", (challenge,)
        with pytest.raises(TransportRefused):
            await setting.releases().admit(digest, setting.source)


BEARER = 'Bearer realm="{}",service="lab",scope="repository:x:pull"'
PART = {"mediaType": IMAGE_MANIFEST, "digest": digest_of(b"{}"), "size": 2}
EMPTY_IMAGE = Image.model_validate(
    {"schemaVersion": 2, "mediaType": IMAGE_MANIFEST, "config": PART, "layers": [PART]}
)
BASIC = 'Basic realm="Gitea Container Registry"'


@pytest.mark.parametrize(
    "challenges",
    [
        (BEARER, BASIC),
        (BASIC, BEARER),
        (f"{BASIC}, {BEARER}",),
        ("Negotiate", f"NTLM abc==, {BEARER}"),
        ('bearer Realm="{}", Service = "lab",SCOPE= "repository:x:pull"',),
        ("Bearer realm={},service=lab,scope=repository:x:pull",),
        (r'Bearer error="no \"token\", none", realm="{}",service="lab",scope="repository:x:pull"',),
    ],
    ids=["Gitea", "Basic first", "one header", "other schemes", "capitals", "unquoted", "quoted quotes"],
)
async def test_a_challenge_is_answered_however_the_registry_writes_it(
    tmp_path: Path, challenges: tuple[str, ...]
) -> None:
    """R11, a fresh reader's F5: of Gitea's two schemes the realm of the last one counted."""
    with FakeRegistry() as registry:
        registry.blobs[digest_of(b"{}")] = b"{}"
        registry.realm = f"{registry.url}/token"
        registry.challenges = tuple(challenge.format(registry.realm) for challenge in challenges)
        transport = Transport([registry.url], deadline_seconds=5)
        source = OciSource(registry.url, "vpn", transport, BlobStore(tmp_path / "blobs"), most_bytes=1)
        assert await source.manifest(digest_of(b"{}")) == b"{}"
        assert registry.token_queries == ["service=lab&scope=repository%3Ax%3Apull"]
        registry.authorizations.clear()
        Registry(registry.url, "vpn").push_image(b"{}", EMPTY_IMAGE, {digest_of(b"{}"): tmp_path / "blobs"})
        assert registry.authorizations[-1] == f"Bearer {TOKEN}"


async def test_a_token_service_keeps_the_query_of_its_own_address(tmp_path: Path) -> None:
    """R11, a fresh reader's F5: the second question mark made the tenant another one."""
    with FakeRegistry() as registry:
        registry.blobs[digest_of(b"{}")] = b"{}"
        registry.realm = f"{registry.url}/token?tenant=a"
        transport = Transport([registry.url], deadline_seconds=5)
        source = OciSource(registry.url, "vpn", transport, BlobStore(tmp_path / "blobs"), most_bytes=1)
        assert await source.manifest(digest_of(b"{}")) == b"{}"
        assert registry.token_queries == ["tenant=a&service=lab&scope=repository%3Ax%3Apull"]


async def test_a_registry_that_offers_a_password_beside_tokens_gets_the_password(tmp_path: Path) -> None:
    """R11, a fresh reader's F5: a login for the registry itself needs no token service."""
    with FakeRegistry() as registry:
        registry.blobs[digest_of(b"{}")] = b"{}"
        registry.realm = "https://elsewhere.corp.example/token"
        registry.challenges = (BEARER.format(registry.realm), BASIC)
        registry.accepted = "Basic " + base64.b64encode(b"penstock:hunter2").decode()
        transport = Transport([registry.url], deadline_seconds=5)
        store, logins = BlobStore(tmp_path / "blobs"), {origin_of(registry.url): registry.accepted}
        source = OciSource(registry.url, "vpn", transport, store, most_bytes=1, logins=logins)
        assert await source.manifest(digest_of(b"{}")) == b"{}"


@pytest.mark.parametrize("realm", ["http://[", "http://127.0.0.1:x/token", "http:///token", "no address"])
async def test_a_token_service_without_an_address_is_refused_by_name(tmp_path: Path, realm: str) -> None:
    """R11, a fresh reader's F5 and F14."""
    with FakeRegistry() as registry:
        registry.realm = realm
        transport = Transport([registry.url], deadline_seconds=5)
        source = OciSource(registry.url, "vpn", transport, BlobStore(tmp_path / "blobs"), most_bytes=1)
        with pytest.raises(TransportRefused):
            await source.manifest(digest_of(b"{}"))
        with pytest.raises(Refused):
            Registry(registry.url, "vpn").push_image(b"{}", EMPTY_IMAGE, {digest_of(b"{}"): tmp_path})


async def test_a_registry_that_asks_for_a_password_gets_it_from_its_reference(tmp_path: Path) -> None:
    (tmp_path / "login").write_text("penstock:hunter2")
    (tmp_path / "login").chmod(0o600)
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url, credentials={registry.url: f"file:{tmp_path / 'login'}"})
        digest = setting.publish()
        registry.realm, registry.challenges = "x", ('Basic realm="lab"',)
        registry.accepted = "Basic " + base64.b64encode(b"penstock:hunter2").decode()
        assert (await setting.releases().admit(digest, setting.source)).reference.digest == digest


async def test_a_registry_that_asks_for_no_password_needs_none(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url, credentials={registry.url: f"file:{tmp_path / 'gone'}"})
        digest = setting.publish()
        assert (await setting.releases().admit(digest, setting.source)).reference.digest == digest


@pytest.mark.parametrize("answer", [b"[]", b'{"token": 5}', b'{"token": "a\\nb"}'])
async def test_a_token_that_is_none_is_refused(tmp_path: Path, answer: bytes) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        registry.realm, registry.token_answer = f"{registry.url}/token", answer
        with pytest.raises(TransportRefused):
            await setting.releases().admit(digest, setting.source)


async def test_a_time_stamp_travels_beside_its_signature(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()
        add_signature(setting.lab.root, digest, "cms", b"signature", b"stamp")
        setting.registry.push_release(setting.lab.root, digest)
        transport = Transport([registry.url], deadline_seconds=5)
        store = BlobStore(tmp_path / "blobs")
        oci = OciSource(registry.url, "vpn/ocserv", transport, store, most_bytes=1)
        http = await _from_folder(setting, digest, store)
        for envelopes in (await oci.signatures(digest), http):
            assert [(e.content, e.token) for e in envelopes if e.kind == "cms"] == [(b"signature", b"stamp")]


async def _from_folder(setting: Setting, digest: str, store: BlobStore) -> tuple[Envelope, ...]:
    def script(request: Request, peer: Peer) -> None:
        blob_server((setting.lab.root / request.path.lstrip("/")).read_bytes())(request, peer)

    with HostileServer(script) as server:
        source = HttpSource(server.url, Transport([server.url], deadline_seconds=5), store, most_bytes=1)
        return await source.signatures(digest)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("channels/ocserv-gw/stable", b"latest"),
        ("signatures", b"{}"),
        ("signatures", json.dumps([{"kind": "pgp", "digest": f"sha256:{'0' * 64}"}]).encode()),
        (
            "signatures",
            json.dumps([{"kind": "cms", "digest": f"sha256:{one:064}"} for one in range(17)]).encode(),
        ),
    ],
    ids=range(4),
)
async def test_a_folders_listing_that_makes_no_sense_is_refused(
    tmp_path: Path, path: str, content: bytes
) -> None:
    with FakeRegistry() as registry:
        setting = Setting(tmp_path, registry.url)
        digest = setting.publish()

    def script(request: Request, peer: Peer) -> None:
        file = setting.lab.root / request.path.lstrip("/")
        blob_server(content if request.path.startswith(f"/{path}") else file.read_bytes())(request, peer)

    with HostileServer(script) as server:
        setting.lab.write_policy(allow=[server.url])
        with pytest.raises(ManifestInvalid):
            await setting.releases().admit(digest, server.url)
