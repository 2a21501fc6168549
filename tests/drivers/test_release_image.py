"""Images are the release's own tree: the same bytes each time, by digest, and nothing else is admitted."""

import gzip
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from activities.drivers.runtime.kubernetes.vouching import VouchedImages
from activities.drivers.runtime.podman.podman import describe
from activities.drivers.source.oci import OciSource
from activities.drivers.source.transport import Transport
from activities.drivers.store.blobs import BlobStore
from activities.drivers.store.layers import require_beside
from activities.drivers.trust_files import compose_releases
from activities.refusals import ArchiveRefused
from activities.releases import Admitted, Releases
from deploy.lab.releases import LabReleases
from orchestrator.cli import release
from orchestrator.publishing import layers
from orchestrator.publishing.builder import BuiltRelease, ReleaseLabels, build_release
from orchestrator.publishing.folder import place, read_blob, read_statement
from orchestrator.publishing.image import (
    APPLETS,
    FOLDERS,
    SHELL,
    BuiltImage,
    ImageLabels,
    assemble,
    build_image,
    read_layout,
    shell_in,
    write_layout,
)
from orchestrator.publishing.layers import Entry
from orchestrator.publishing.registry import Registry
from orchestrator.publishing.tree import PROGRAMS
from policies.model.errors import BadInput, Refused
from policies.model.refusals import DigestMismatch, DoesNotFit, SubjectMismatch
from policies.model.release import ReleaseManifest
from policies.model.value import digest_of
from policies.trust.images import IMAGE_INDEX, IMAGE_MANIFEST, parse_image
from policies.trust.statements import parse_release
from tests.drivers import registries
from tests.drivers.test_release_tree import SLEEP, deb, needed
from tests.fakes.image import small_image, small_shell
from tests.fakes.registry import FakeRegistry
from tests.fakes.trees import small_tree

REPOSITORY = "vpn/ocserv"
STATIC = Path("/sbin/ldconfig")
"""A program of every Debian that needs no loader."""


def entries(image: BuiltImage, number: int) -> dict[str, tarfile.TarInfo]:
    """What is in a layer of the image, by path."""
    layer = parse_image(image.manifest).layers[number]
    with tarfile.open(image.blobs[layer.digest]) as archive:
        return {member.name: member for member in archive}


def released(folder: Path, image: BuiltImage | None = None, version: str = "1.0") -> BuiltRelease:
    """Build the release of the small tree."""
    tree, template = small_tree(folder)
    labels = ReleaseLabels(product="gw", version=version)
    return build_release(tree, template, labels, folder / "blobs", image=image)


def test_the_same_tree_gives_the_same_image_byte_for_byte(tmp_path: Path) -> None:
    first, again = small_image(tmp_path / "one"), small_image(tmp_path / "two")
    assert first.manifest == again.manifest
    assert {d: p.read_bytes() for d, p in first.blobs.items()} == {
        d: p.read_bytes() for d, p in again.blobs.items()
    }


def test_the_first_layer_is_the_archive_that_hosts_unpack(tmp_path: Path) -> None:
    image = small_image(tmp_path)
    manifest = parse_release(released(tmp_path, image).statement)
    tree = manifest.artifacts[0]
    assert parse_image(image.manifest).layers[0].digest == tree.digest
    assert manifest.image_digest == image.digest


def test_a_compressed_tree_is_the_first_layer_as_well(tmp_path: Path) -> None:
    tree, template = small_tree(tmp_path)
    shell, labels = small_shell(tmp_path), ImageLabels("gw", "1.0")
    image = build_image(tree, shell, labels, tmp_path / "image", compress=True)
    named = ReleaseLabels(product="gw", version="1.0")
    built = build_release(tree, template, named, tmp_path / "blobs", compress=True, image=image)
    first = parse_image(image.manifest).layers[0]
    assert first.digest == parse_release(built.statement).artifacts[0].digest
    assert first.media_type.endswith("+gzip")


def test_the_config_says_what_each_layer_unpacks_to_and_how_the_daemon_is_started(tmp_path: Path) -> None:
    image = small_image(tmp_path)
    found = parse_image(image.manifest)
    config = json.loads(image.blobs[found.config.digest].read_bytes())
    plain = [layers.existing(image.blobs[layer.digest]).unpacked for layer in found.layers]
    assert config["rootfs"]["diff_ids"] == plain
    assert config["config"]["Entrypoint"] == [
        *("/usr/sbin/ocserv", "-f", "-d", "3", "-c", "/etc/penstock/ocserv.conf")
    ]
    assert set(config["config"]["Labels"].values()) == {"gw", "1.0"}


def test_the_second_layer_has_the_places_that_pods_mount_to_the_links_and_the_shell(tmp_path: Path) -> None:
    found = entries(small_image(tmp_path), 1)
    assert {"etc/penstock", "run/penstock", "tmp", "dev", "proc", "sys"} <= set(FOLDERS) <= set(found)
    assert all(found[folder].isdir() for folder in FOLDERS)
    assert found["usr/lib/libexample.so"].linkname == "libexample.so.1"
    assert found[SHELL].mode == 0o755
    assert {name for name in APPLETS if found[f"usr/bin/{name}"].linkname == "busybox"} == set(APPLETS)
    assert {(m.uid, m.gid, m.mtime) for m in found.values()} == {(0, 0, 0)}


def test_a_configuration_lies_where_the_daemon_finds_it(tmp_path: Path) -> None:
    tree, config = small_tree(tmp_path)
    shell, labels = small_shell(tmp_path), ImageLabels("gw", "1.0")
    image = build_image(tree, shell, labels, tmp_path / "image", config=config)
    assert entries(image, 1)["etc/penstock/ocserv.conf"].size == config.stat().st_size


def test_a_configuration_with_a_private_key_is_in_no_image(tmp_path: Path) -> None:
    tree, config = small_tree(tmp_path)
    key = ["openssl", "genpkey", "-algorithm", "ed25519"]
    config.write_bytes(subprocess.run(key, capture_output=True, check=True).stdout)
    with pytest.raises(BadInput, match="private key"):
        build_image(tree, small_shell(tmp_path), ImageLabels("gw", "1.0"), tmp_path / "image", config=config)


def test_a_tree_that_has_a_file_where_pods_mount_is_refused(tmp_path: Path) -> None:
    tree, _ = small_tree(tmp_path)
    (tree / "etc").mkdir()
    (tree / "etc/penstock").write_text("a file")
    with pytest.raises(BadInput, match="etc/penstock"):
        build_image(tree, small_shell(tmp_path), ImageLabels("gw", "1.0"), tmp_path / "image")


def test_an_image_of_another_tree_is_in_no_release(tmp_path: Path) -> None:
    other = small_image(tmp_path / "other", marker=b"other")
    with pytest.raises(BadInput, match="first layer"):
        released(tmp_path, other)


def test_an_image_that_calls_itself_another_version_is_in_no_release(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"calls itself gw 1\.0, and the release is gw 1\.1"):
        released(tmp_path, small_image(tmp_path), version="1.1")


def _with(image: BuiltImage, entry: Entry, folder: Path) -> BuiltImage:
    """Return the image with a third layer of this entry."""
    folder.mkdir()
    own = [layers.existing(image.blobs[one.digest]) for one in parse_image(image.manifest).layers]
    return assemble([*own, layers.write([entry], folder)], ["/bin/x"], ImageLabels("gw", "1.0"), folder)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (Entry("usr/sbin/ocserv", 0o755, b"another daemon"), "replaces 'usr/sbin/ocserv'"),
        (Entry("usr/lib/libexample.so", 0o777, target="evil.so"), "replaces 'usr/lib/libexample.so'"),
        (Entry("usr/lib", 0o777, target="elsewhere"), "hides what the release has in 'usr/lib'"),
        (Entry("usr/sbin/.wh.ocserv", 0o644, b""), "which none may"),
        (Entry("usr/sbin/ocserv/below", 0o644, b""), "replaces 'usr/sbin/ocserv/below'"),
        (Entry("../outside", 0o644, b""), "which none may"),
        (Entry("usr/bin/more", 0o4755, b""), "which none may"),
        (Entry("usr/bin/nc", 0o755, b"a program"), "programs that the release does not list: usr/bin/nc"),
    ],
    ids=lambda value: value.path if isinstance(value, Entry) else "",
)
def test_an_image_that_has_more_or_other_than_the_release_is_in_no_release(
    tmp_path: Path, entry: Entry, said: str
) -> None:
    image = _with(small_image(tmp_path), entry, tmp_path / "third")
    with pytest.raises(BadInput, match=said.replace(".", r"\.")):
        released(tmp_path, image)


def test_an_image_without_the_releases_links_is_refused(tmp_path: Path) -> None:
    tree = parse_release(released(tmp_path).statement).artifacts[0]
    with pytest.raises(ArchiveRefused, match=r"lacks the release's link 'usr/lib/libexample\.so'"):
        require_beside([], tree)


@pytest.mark.parametrize("damaged", [b"", b"no archive", b"\x1f\x8b\x08 cut"])
def test_a_layer_that_cannot_be_read_is_refused(tmp_path: Path, damaged: bytes) -> None:
    tree = parse_release(released(tmp_path).statement).artifacts[0]
    with pytest.raises(ArchiveRefused):
        require_beside([damaged], tree)


def a_layer_of(kind: bytes, size: int, times: int = 1) -> bytes:
    """Return a compressed layer of extended headers, which a reader keeps in memory."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, size
    once = header.tobuf(tarfile.GNU_FORMAT) + bytes(-(-size // 512) * 512)
    return gzip.compress(once * times + bytes(1024))


@pytest.mark.parametrize(
    "bomb",
    [
        a_layer_of(tarfile.GNUTYPE_LONGNAME, 17 << 20),
        a_layer_of(tarfile.XHDTYPE, 17 << 20),
        a_layer_of(tarfile.XGLTYPE, 1 << 20, times=17),
        a_layer_of(tarfile.XHDTYPE, 0, times=5_000),
    ],
    ids=["a long name", "attributes", "attributes of all", "a chain of attributes"],
)
def test_a_layer_whose_headers_would_fill_the_memory_is_refused(tmp_path: Path, bomb: bytes) -> None:
    """L5: two megabytes took four gigabytes, because only members were counted."""
    tree = parse_release(released(tmp_path).statement).artifacts[0]
    with pytest.raises(ArchiveRefused):
        require_beside([bomb], tree)


def test_a_folder_in_the_oci_layout_holds_the_image_and_is_read_again(tmp_path: Path) -> None:
    image = small_image(tmp_path)
    write_layout(image, tmp_path / "layout")
    assert json.loads((tmp_path / "layout/oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    found = read_layout(tmp_path / "layout")
    assert found.manifest == image.manifest
    assert {d: p.read_bytes() for d, p in found.blobs.items()} == {
        d: p.read_bytes() for d, p in image.blobs.items()
    }
    with pytest.raises(BadInput, match="there already"):
        write_layout(image, tmp_path / "layout")


def test_a_layout_of_several_images_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Case 47: `docker buildx build --output type=oci` writes an index with an attestation."""
    image = small_image(tmp_path)
    write_layout(image, tmp_path / "layout")
    listed = {"mediaType": IMAGE_MANIFEST, "digest": image.digest, "size": len(image.manifest)}
    index = json.dumps({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": [listed, listed]}).encode()
    (tmp_path / "layout/blobs/sha256" / digest_of(index)[7:]).write_bytes(index)
    top = {"mediaType": IMAGE_INDEX, "digest": digest_of(index), "size": len(index)}
    (tmp_path / "layout/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    with pytest.raises(BadInput, match=r"holds an index of several images.*`penstock release image`"):
        read_layout(tmp_path / "layout")


def test_a_layout_whose_bytes_were_altered_is_refused(tmp_path: Path) -> None:
    image = small_image(tmp_path)
    write_layout(image, tmp_path / "layout")
    for digest in (*image.blobs, image.digest):
        path = tmp_path / "layout/blobs" / digest.replace(":", "/")
        content = path.read_bytes()
        path.write_bytes(content.replace(b"a", b"b", 1) if digest == image.digest else content + b"x")
        with pytest.raises(BadInput, match=r"layout|other bytes"):
            read_layout(tmp_path / "layout")
        path.write_bytes(content)


def test_the_shell_has_to_be_static(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    with pytest.raises(BadInput, match="has no usr/bin/busybox"):
        shell_in(tmp_path)
    shutil.copyfile("/bin/sleep", tmp_path / SHELL)
    with pytest.raises(BadInput, match="not static"):
        shell_in(tmp_path)


class Published:
    """Releases with images in a repository folder and in a registry."""

    def __init__(self, folder: Path, base: str) -> None:
        self.folder, self.source = folder, f"oci+{base}/{REPOSITORY}"
        self.registry = Registry(base, REPOSITORY)
        self.lab = LabReleases(
            folder / "lab",
            folder / "repository",
            base,
            product="gw",
            shell=small_shell(folder),
            registry=self.registry,
        )

    def publish(self, number: int = 1, *, version: str | None = None) -> str:
        tree = small_tree(self.folder, marker=b"%d" % number)
        return self.lab.publish(*tree, version=version or f"1.{number}", rollback_index=number)

    def manifest(self, digest: str) -> ReleaseManifest:
        return parse_release(read_statement(self.lab.root, digest))

    def releases(self) -> Releases:
        policy = self.lab.trust_policy
        return compose_releases(self.folder / "store", policy, product="gw", channel="stable")


@pytest.fixture(scope="module")
def real_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = registries.installed()
    if program is None:
        pytest.skip(registries.MISSING)
    with registries.registry(program, tmp_path_factory.mktemp("registry")) as url:
        yield url


async def test_a_real_registry_delivers_the_image_by_digest_and_its_signatures(
    real_registry: str, tmp_path: Path
) -> None:
    published = Published(tmp_path, real_registry)
    digest = published.publish()
    manifest, releases = published.manifest(digest), published.releases()
    assert await releases.image_of(manifest.reference(digest), published.source) == manifest.image_digest
    transport = Transport([real_registry], deadline_seconds=20)
    source = OciSource(real_registry, REPOSITORY, transport, BlobStore(tmp_path / "b"), most_bytes=1 << 20)
    assert manifest.image_digest == digest_of(await source.image(str(manifest.image_digest)))
    of_the_image = await source._referrers(str(manifest.image_digest))
    assert sorted(e.content for e in of_the_image) == sorted(
        e.content for e in await source.signatures(digest)
    )
    assert len(of_the_image) == 2


async def test_pushing_again_changes_nothing(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        published = Published(tmp_path, registry.url)
        digest = published.publish()
        before = (dict(registry.manifests), dict(registry.blobs), dict(registry.tags))
        published.registry.push(published.lab.root, digest)
        assert (registry.manifests, registry.blobs, registry.tags) == before


async def _admitted(published: Published, digest: str) -> tuple[Releases, Admitted]:
    releases = published.releases()
    return releases, await releases.admit(digest, published.source)


async def test_an_image_that_was_compared_here_needs_no_registry_on_the_way_back(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        published = Published(tmp_path, registry.url)
        digest = published.publish()
        releases, release = published.releases(), published.manifest(digest).reference(digest)
        named = await releases.image_of(release, published.source)
        releases.promote(digest)
    assert await releases.image_of(release, published.source) == named


async def test_an_image_is_laid_out_whole_for_who_makes_containers_of_it(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        published = Published(tmp_path, registry.url)
        releases, admitted = await _admitted(published, published.publish())
        await releases.lay_image(admitted, published.source, tmp_path / "laid")
    describe(tmp_path / "laid")
    found = read_layout(tmp_path / "laid")
    assert found.digest == admitted.manifest.image_digest
    assert admitted.manifest.tree is not None
    assert found.blobs[admitted.manifest.tree.digest].stat().st_size == admitted.manifest.tree.size
    await published.releases().lay_image(admitted, published.source, tmp_path / "again")  # nothing is fetched
    assert (tmp_path / "again/manifest.json").read_bytes() == found.manifest


async def test_an_image_with_a_configuration_that_the_registry_swapped_is_not_laid_out(
    tmp_path: Path,
) -> None:
    with FakeRegistry() as registry:
        published = Published(tmp_path, registry.url)
        releases, admitted = await _admitted(published, published.publish())
        content = registry.manifests[str(admitted.manifest.image_digest)]
        config = parse_image(content).config.digest
        registry.blobs[config] = b"x" * len(registry.blobs[config])
        with pytest.raises(DigestMismatch):
            await releases.lay_image(admitted, published.source, tmp_path / "laid")
    assert not (tmp_path / "laid/manifest.json").exists()


async def test_a_cluster_that_keeps_what_runs_there_refuses_nothing_older_for_it(tmp_path: Path) -> None:
    """It may be yesterday's failed release, which only ends its last sessions."""
    with FakeRegistry() as registry:
        published = Published(tmp_path, registry.url)
        older, failed = published.publish(1), published.publish(2)
        releases = published.releases()
        await releases.image_of(published.manifest(failed).reference(failed), published.source)
        VouchedImages(releases).keep(failed)
        assert releases.known_good() == (failed,)
        assert await releases.image_of(published.manifest(older).reference(older), published.source)


async def test_an_image_that_the_registry_changed_is_refused(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        published = Published(tmp_path, registry.url)
        digest = published.publish()
        image = str(published.manifest(digest).image_digest)
        registry.tags[image] = registry.manifests[image].hex()
        registry.manifests[registry.tags[image]] = registry.manifests[image].replace(b"tar", b"TAR", 1)
        releases, admitted = await _admitted(published, digest)
        with pytest.raises(DigestMismatch):
            await releases.image(admitted, published.source)


async def test_a_layer_that_the_registry_swapped_is_refused(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        published = Published(tmp_path, registry.url)
        digest = published.publish()
        image = parse_image(registry.manifests[str(published.manifest(digest).image_digest)])
        registry.blobs[image.layers[1].digest] = bytes(image.layers[1].size)
        releases, admitted = await _admitted(published, digest)
        with pytest.raises(DigestMismatch):
            await releases.image(admitted, published.source)


Forgery = Callable[[Published, str, str], str]


def _other_releases_image(published: Published, digest: str, other: str) -> str:
    return str(published.manifest(other).image)


def _hiding_image(published: Published, digest: str, other: str) -> str:
    """Push an image of the right tree with a layer that replaces the daemon."""
    named = str(published.manifest(digest).image_digest)
    image = parse_image(read_blob(published.lab.root, named))
    blobs = {part.digest: place(published.lab.root, "blobs", part.digest) for part in image.layers}
    own = BuiltImage(read_blob(published.lab.root, named), blobs)
    forged = _with(own, Entry("usr/sbin/ocserv", 0o755, b"another daemon"), published.folder / "forged")
    published.registry.push_image(forged.manifest, parse_image(forged.manifest), dict(forged.blobs))
    return forged.digest.removeprefix("sha256:")


@pytest.mark.parametrize(
    ("forge", "refusal"),
    [(_other_releases_image, SubjectMismatch), (_hiding_image, ArchiveRefused)],
    ids=["the image of another release", "an image that replaces the daemon"],
)
async def test_a_signed_release_with_an_image_of_other_content_is_refused(
    tmp_path: Path, forge: Forgery, refusal: type[Refused]
) -> None:
    with FakeRegistry() as registry:
        published = Published(tmp_path, registry.url)
        digest, other = published.publish(1), published.publish(2)
        statement = json.loads(read_statement(published.lab.root, digest))
        before = statement["predicate"]["image"]
        sha256 = forge(published, digest, other)
        forged = read_statement(published.lab.root, digest).replace(before.encode(), sha256.encode())
        published.lab._registry = None
        signed = published.lab.publish_built(BuiltRelease(forged, {}), 1)
        _push_without_looking(published, signed)
        releases, admitted = await _admitted(published, signed)
        with pytest.raises(refusal):
            await releases.image(admitted, published.source)


def _push_without_looking(published: Published, digest: str) -> None:
    """Push a release as somebody would whose tools compare nothing."""
    registry, root = published.registry, published.lab.root
    statement = read_statement(root, digest)
    layer = registry._push(statement, "application/vnd.in-toto+json")
    manifest = json.dumps({"schemaVersion": 2, "layers": [layer]}).encode()
    pushed = registry._push_manifest(manifest, f"statement-{digest[7:]}")
    registry._push_signatures(root, digest, pushed)
    registry.push_index(root, "gw", "stable")


async def test_a_release_without_an_image_is_told_to_be_built_with_one(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        published = Published(tmp_path, registry.url)
        published.lab._shell = None
        releases, admitted = await _admitted(published, published.publish())
        with pytest.raises(DoesNotFit, match="names no image"):
            await releases.image(admitted, published.source)


async def test_a_refused_image_is_in_the_audit_record(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        published = Published(tmp_path, registry.url)
        published.lab._shell = None
        releases, admitted = await _admitted(published, published.publish())
        with pytest.raises(DoesNotFit):
            await releases.image(admitted, published.source)
        last = (tmp_path / "store/audit.jsonl").read_text().splitlines()[-1]
        assert "DoesNotFit" in last


def test_a_release_whose_image_is_not_in_the_folder_is_not_pushed(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        published = Published(tmp_path, registry.url)
        digest = published.publish()
        place(published.lab.root, "blobs", str(published.manifest(digest).image_digest)).unlink()
        with pytest.raises(BadInput, match="lacks the blob"):
            published.registry.push(published.lab.root, digest)


def test_a_login_goes_to_no_registry_without_tls() -> None:
    with pytest.raises(BadInput, match="use https"):
        Registry("http://registry.example:5000", "vpn", login="ana:secret")


def _type(*words: object) -> str:
    done = CliRunner().invoke(release.app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout.strip().splitlines()[-1]


def test_the_commands_make_an_image_a_release_of_it_and_push_both(tmp_path: Path) -> None:
    tree, template = small_tree(tmp_path)
    with FakeRegistry() as registry:
        image = small_image(tmp_path)
        write_layout(image, tmp_path / "image-folder")
        repository = ("--repository", tmp_path / "releases")
        about = ("--product", "gw", "--version", "1.0", "--rollback-index", 1, "--serial", 1)
        built = ("build", tree, *repository, "--template", template, *about)
        digest = _type(*built, "--image", tmp_path / "image-folder")
        pushed = _type("push", digest, *repository, "--to", f"oci+{registry.url}/{REPOSITORY}")
        assert pushed.endswith(f"/{REPOSITORY}@{image.digest}")
        assert image.digest in registry.manifests
        assert not (tmp_path / "releases/blobs/building").exists()


def test_the_command_makes_tree_and_image_of_packages_in_one_go(tmp_path: Path) -> None:
    loaded = {path.lstrip("/"): Path(path) for path in needed()}
    programs = dict.fromkeys(PROGRAMS, SLEEP)
    daemon = deb(tmp_path, "daemon", {**programs, **loaded})
    shell = deb(tmp_path, "shell", {SHELL: STATIC})
    _, config = small_tree(tmp_path / "small")
    made = ("image", tmp_path / "image", "--tree", tmp_path / "made", "--product", "gw", "--version", "1.0")
    digest = _type(*made, "--package", daemon, "--shell", shell, "--config", config)
    image = read_layout(tmp_path / "image")
    assert image.digest == digest
    assert set(PROGRAMS) <= set(entries(image, 0))
    assert {SHELL, "etc/penstock/ocserv.conf", "lib64"} <= set(entries(image, 1))
    assert (tmp_path / "made/usr/sbin/ocserv").read_bytes() == SLEEP.read_bytes()
