"""What well-signed but ill-meant manifests can write: nothing outside of the folder of their release."""

import ctypes
import errno
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from activities.drivers.runtime.host.chroot import MOUNT_POINTS
from activities.drivers.store.beneath import Beneath
from activities.drivers.store.blobs import BlobStore
from activities.drivers.store.trees import furnish, unpack
from activities.refusals import ArchiveRefused
from orchestrator.publishing.builder import index_statement
from policies.model.errors import BadInput, PenstockError
from policies.model.release import Artifact, CurrentRelease
from policies.model.tree_path import place_of
from policies.trust.statements import parse_index, parse_release
from tests.fakes.hostile_manifests import hostile_statement, mutated
from tests.unit.test_trust import HEX, NOW, PREDICATE, release_payload


def lay_out(artifacts: tuple[Artifact, ...], store: BlobStore, into: Path) -> None:
    """Write a release as a host does that has admitted it."""
    for artifact in artifacts:
        if artifact.unpack == "none":
            store.install(artifact.digest, into, artifact.name)
        else:
            unpack(store.stream(artifact.digest), artifact, into / "root")
    furnish(into / "root", MOUNT_POINTS)


def everything(folder: Path) -> set[tuple[Path, int]]:
    """Return every entry of the folder with its size, no link followed."""
    return {(path, path.lstat().st_size * path.is_file()) for path in folder.rglob("*")}


def fuzz(folder: Path, seed: int, count: int) -> Counter[str]:
    """Lay out that many manifests, also those that only the second lock sees; return how each ended."""
    chance, ends = random.Random(seed), Counter[str]()
    outside, into = folder / "outside", folder / "outside/versions/one"
    into.parent.mkdir(parents=True)
    (outside / "etc").mkdir()
    store = BlobStore(folder / "store")
    before = everything(outside)
    for number in range(count):
        told = f"seed {seed}, manifest {number}"
        statement, blobs = hostile_statement(chance)
        for blob in blobs.values():
            store.put(blob)
        into.mkdir()
        try:
            artifacts = parse_release(statement).artifacts
        except PenstockError as refused:
            ends[refused.code] += 1
            artifacts = ()
        try:
            lay_out(artifacts, store, into)
            ends["written"] += bool(artifacts)
        except PenstockError as refused:
            ends[refused.code] += 1
        for at, folders, files in os.walk(into / "root"):
            for name in (*folders, *files):
                assert (Path(at) / name).resolve().is_relative_to(into / "root"), told
        shutil.rmtree(into)
        assert everything(outside) == before, told
    return ends


def fuzz_without_the_manifest(folder: Path, seed: int, count: int) -> int:
    """Write to paths and through links that no manifest may have; return how many writes came through."""
    chance, written = random.Random(seed), 0
    outside, into = folder / "outside", folder / "outside/one"
    outside.mkdir()
    for number in range(count):
        into.mkdir()
        with Beneath(into) as place:
            for _ in range(6):
                parts = chance.choices(("a", "b", "..", ".", "", "c"), k=chance.randrange(1, 4))
                path = chance.choice(("", "", "/", f"{outside}/")) + "/".join(parts)
                try:
                    if chance.random() < 0.5:
                        place.link(path, chance.choice(("..", "../..", "/", str(outside), "a", ".")))
                    else:
                        os.close(place.create(path))
                    written += 1
                except ArchiveRefused:
                    continue
        shutil.rmtree(into)
        assert not any(outside.iterdir()), f"seed {seed}, round {number}"
    return written


@pytest.mark.sweep
def test_no_manifest_writes_outside_of_its_release_and_every_refusal_is_ours(tmp_path: Path) -> None:
    """H4: links through links and single files below `root/` led out of the tree."""
    ends = fuzz(tmp_path, 11, 400)
    assert min(ends["written"], ends["ManifestInvalid"]) > 20, ends


def test_the_kernel_refuses_what_the_manifests_rules_would_have_passed_over(tmp_path: Path) -> None:
    """H4: the second lock holds alone."""
    assert fuzz_without_the_manifest(tmp_path, 11, 300) > 100


def statements_mutated(seed: int, count: int) -> Counter[str]:
    """Read that many altered manifests and indexes; return how each ended."""
    chance, ends = random.Random(seed), Counter[str]()
    current = [CurrentRelease(manifest_sha256=HEX, rollback_index=5)]
    index = index_statement("ocserv-gw", "stable", current, serial=1, issued_at=NOW, revoked=[HEX])
    for _ in range(count):
        for payload, read in ((release_payload(), parse_release), (index, parse_index)):
            try:
                read(mutated(payload, chance))
                ends["read"] += 1
            except PenstockError as refused:
                ends[refused.code] += 1
    return ends


def test_every_altered_manifest_and_index_is_read_or_refused_in_our_words() -> None:
    """Low: no foreign exception comes out of a document of others."""
    ends = statements_mutated(5, 1000)
    assert min(ends["read"], ends["ManifestInvalid"]) > 10, ends


@pytest.mark.sweep
@pytest.mark.timeout(1800)
def test_ten_thousand_fresh_manifests_and_indexes_write_nothing_outside(tmp_path: Path) -> None:
    """H4: with a seed of its own in every run."""
    seed = time.time_ns()
    for folder in ("by manifest", "alone"):
        (tmp_path / folder).mkdir()
    ends = fuzz(tmp_path / "by manifest", seed, 10_000)
    fuzz_without_the_manifest(tmp_path / "alone", seed, 10_000)
    ends += statements_mutated(seed, 10_000)
    print(f"seed {seed}: {dict(ends)}")


TREE = PREDICATE["artifacts"][0]
DEEP = "a/b/c/d/e/f/up"


@pytest.mark.parametrize(
    "links",
    [
        [
            {"path": DEEP, "target": "../../../../../.."},
            {"path": "out", "target": f"{DEEP}/../../../../host-etc"},
        ],
        [{"path": "here", "target": "."}, {"path": "out", "target": "here/../etc"}],
        [{"path": "one", "target": "two"}, {"path": "two", "target": "one"}],
        [{"path": "self", "target": "self/x"}],
    ],
    ids=["through a link", "through the root", "round and round", "deeper and deeper"],
)
def test_a_link_is_followed_through_the_links_on_its_way(links: list[dict[str, str]]) -> None:
    """H4: the depth of a link was counted by its letters alone."""
    with pytest.raises(PenstockError, match="leads"):
        parse_release(release_payload(artifacts=[TREE | {"links": links}, PREDICATE["artifacts"][1]]))


def test_links_that_stay_inside_are_what_they_were() -> None:
    links = {"lib64": "usr/lib64", "usr/lib64": "../usr/lib", "usr/lib/x.so": "x.so.1"}
    assert place_of("lib64/x.so", links) == "usr/lib/x.so.1"
    assert place_of("usr/../lib64/..", links) == "usr"


@pytest.mark.parametrize(
    "name", ["root", "root/out/cron.d-evil", "ROOT/x", "manifest.json", ".complete", "config"]
)
def test_a_single_file_below_the_tree_or_in_the_place_of_another_is_refused(name: str) -> None:
    """H4, and Low: a single file called `root` gave IsADirectoryError."""
    alone = PREDICATE["artifacts"][1]
    with pytest.raises(PenstockError):
        parse_release(release_payload(artifacts=[TREE, alone, alone | {"name": name}]))


def test_a_release_has_one_tree() -> None:
    """H4: a second archive took the place of the first one."""
    other = TREE | {"name": "second.tar", "files": [TREE["files"][0] | {"path": "usr/bin/x"}]}
    with pytest.raises(PenstockError, match="one tree"):
        parse_release(release_payload(artifacts=[TREE, other, PREDICATE["artifacts"][1]]))


@pytest.mark.parametrize("path", ["run", "etc/penstock", "dev"])
def test_a_file_where_the_host_needs_a_folder_is_refused_in_our_words(tmp_path: Path, path: str) -> None:
    """H4: what is mounted into a release is never mounted through a link of its own."""
    with Beneath(tmp_path) as place:
        place.link(path, "/etc")
    with pytest.raises(ArchiveRefused, match="beneath"):
        furnish(tmp_path, MOUNT_POINTS)


def test_a_kernel_without_openat2_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H4: an old kernel is a sentence, and nothing is written another way."""
    monkeypatch.setattr("activities.drivers.store.beneath.OPENAT2", 1 << 20)
    with Beneath(tmp_path) as place, pytest.raises(BadInput, match=r"Linux 5\.6"):
        place.create("file")
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_the_kernel_cannot_follow_for_the_moment_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race itself, a mount on the host beside a path with `..`, is too rare to be waited for."""
    real, refused = ctypes.CDLL(None, use_errno=True), list[object]()

    def syscall(*words: object) -> int:
        if len(refused) < 3:
            refused.append(words)
            ctypes.set_errno(errno.EAGAIN)
            return -1
        return int(real.syscall(*words))

    monkeypatch.setattr("activities.drivers.store.beneath._libc", SimpleNamespace(syscall=syscall))
    with Beneath(tmp_path) as place:
        os.close(place.create("file"))
    assert ([path.name for path in tmp_path.iterdir()], len(refused)) == (["file"], 3)
