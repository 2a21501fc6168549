"""Files that decide what may run: loose rights and doubtful content are refused."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pysequoia
import pytest

from activities.drivers.credentials import Credentials
from activities.drivers.rights import read_own, require_own
from activities.drivers.trust_files import load_trust
from activities.refusals import PolicyInvalid
from orchestrator.engine.secured import secured
from orchestrator.processes.scraping import certified
from orchestrator.service.identity import IdentityProvider
from policies.model.errors import BadInput
from policies.model.people import Oidc
from policies.model.value import digest_of
from tests.fakes.stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as stage:
        yield stage


LOOSE: dict[str, Callable[[Path], None]] = {
    "written by the group": lambda path: path.chmod(0o664),
    "written by all": lambda path: path.chmod(0o666),
    "in a folder of all": lambda path: path.parent.chmod(0o777),
    "in a folder of the group": lambda path: path.parent.chmod(0o770),
}


@pytest.mark.parametrize("how", LOOSE)
def test_a_trust_policy_that_others_may_write_is_refused_with_what_mends_it(stage: Stage, how: str) -> None:
    """M6: a trust.yaml at 0666 in a 0777 folder was accepted."""
    load_trust(stage.lab.trust_policy)
    LOOSE[how](stage.lab.trust_policy)
    with pytest.raises(PolicyInvalid, match="chmod go-w"):
        load_trust(stage.lab.trust_policy)


def test_a_trust_policy_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "trust.yaml"
    with pytest.raises(PolicyInvalid) as told:
        load_trust(path)
    missing = f"the trust policy {path} cannot be read (No such file or directory); write it, or say where"
    assert str(told.value).startswith(missing)


def test_a_trusted_root_that_others_may_write_is_refused(stage: Stage) -> None:
    """M6: the files that the policy names count as it does."""
    stage.signer.trusted_root_path.chmod(0o666)
    with pytest.raises(PolicyInvalid, match=r"trusted_root\.json"):
        load_trust(stage.lab.trust_policy)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else_is_refused(stage: Stage) -> None:
    """M6: whoever owns a file may change it."""
    os.chown(stage.lab.trust_policy, 12345, -1)
    with pytest.raises(PolicyInvalid, match="user 12345"):
        load_trust(stage.lab.trust_policy)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o606])
def test_a_secret_that_others_may_read_is_refused_with_what_mends_it(tmp_path: Path, mode: int) -> None:
    """M6: keys and tokens that everybody reads are none."""
    key = tmp_path / "key"
    key.write_text("a secret")
    key.chmod(mode)
    with pytest.raises(BadInput, match="chmod"):
        Credentials({}).resolve(f"file:{key}")
    key.chmod(0o600)
    Credentials({}).resolve(f"file:{key}")


def test_a_certificate_is_for_everybody_and_nobody_elses_to_write(tmp_path: Path) -> None:
    """M6: what is public may be read, and still not be replaced."""
    certificate = tmp_path / "gateway.pem"
    certificate.write_text("-----BEGIN CERTIFICATE-----\n")
    certificate.chmod(0o644)
    Credentials({}).resolve(f"file:{certificate}")
    certificate.chmod(0o666)
    with pytest.raises(BadInput, match="chmod go-w"):
        Credentials({}).resolve(f"file:{certificate}")


def test_a_folder_where_everybody_keeps_their_own_is_no_risk(tmp_path: Path) -> None:
    file = tmp_path / "trust.yaml"
    file.write_text("")
    file.chmod(0o600)
    tmp_path.chmod(0o1777)
    require_own(file, secret=True)


def in_a_folder_of_another_user(folder: Path) -> Path:
    os.chown(folder, 65534, 65534)
    return folder / "file"


def by_a_link_in_an_open_folder(folder: Path) -> Path:
    open_folder = folder.parent / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    (open_folder / "link").symlink_to(folder / "file")
    return open_folder / "link"


def by_a_folder_that_is_a_link_in_an_open_folder(folder: Path) -> Path:
    open_folder = folder.parent / "open"
    open_folder.mkdir()
    (open_folder / "link").symlink_to(folder)
    open_folder.chmod(0o770)
    return open_folder / "link" / "file"


def below_an_open_folder(folder: Path) -> Path:
    folder.parent.chmod(0o777)
    return folder / "file"


def by_another_users_link_in_a_shared_folder(folder: Path) -> Path:
    shared = folder.parent / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "link").symlink_to(folder / "file")
    os.lchown(shared / "link", 65534, 65534)
    return shared / "link"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(
    "way",
    [
        in_a_folder_of_another_user,
        by_a_link_in_an_open_folder,
        by_a_folder_that_is_a_link_in_an_open_folder,
        below_an_open_folder,
        by_another_users_link_in_a_shared_folder,
    ],
    ids=lambda way: way.__name__,
)
def test_a_file_that_another_user_may_replace_anywhere_on_the_way_is_refused(
    tmp_path: Path, way: Callable[[Path], Path]
) -> None:
    """S6: only the mode of the resolved file's own folder was looked at."""
    folder = tmp_path / "above" / "folder"
    folder.mkdir(parents=True)
    (folder / "file").write_text("")
    assert read_own(folder / "file") == b""
    path = way(folder)
    with pytest.raises(BadInput, match=r"may replace .*; (chmod go-w|chown 0) "):
        require_own(path)
    with pytest.raises(BadInput, match="may replace"):
        read_own(path)


def test_a_link_of_our_own_in_a_shared_folder_is_followed(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (tmp_path / "file").write_text("said")
    (shared / "link").symlink_to("../file")
    assert read_own(shared / "link") == b"said"


def test_a_chain_of_links_without_an_end_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        read_own(tmp_path / "a")
    require_own(tmp_path / "a")


def test_what_is_read_is_the_file_that_was_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S6: a file was checked by its name and then opened by its name, with a moment between."""
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_text("checked")
    other.write_text("put in its place")
    genuine = os.open

    def opened(named: Any, *arguments: Any, **more: Any) -> int:
        file = genuine(named, *arguments, **more)
        if named == os.fspath(path) and other.exists():
            other.replace(path)
        return file

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(BadInput, match="was replaced while it was read"):
        read_own(path)


def test_whether_a_credential_is_secret_is_asked_of_the_file_that_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S6: a credential's path was walked twice, so that the second look could be at another file."""
    path, other = tmp_path / "token", tmp_path / "other"
    path.write_text("everybody reads it")
    path.chmod(0o644)
    other.write_text("a secret")
    other.chmod(0o600)

    def read_and_replaced(file: Path, **named: Any) -> bytes:
        content = read_own(file, **named)
        other.replace(path)
        return content

    monkeypatch.setattr("activities.drivers.credentials.read_own", read_and_replaced)
    with pytest.raises(BadInput, match="may be read by others"):
        Credentials({}).resolve(f"file:{path}")


@pytest.mark.parametrize(
    "believe",
    [
        lambda path: secured("engine.example:7233", authority=path),
        lambda path: IdentityProvider(
            Oidc(issuer="https://id.example", audience="p", client="p"), path
        ).login(),
    ],
    ids=["the engine", "the identity provider"],
)
def test_authorities_that_others_may_write_are_refused(
    tmp_path: Path, believe: Callable[[Path], object]
) -> None:
    """S6: who may write them decides which engine is taken for ours, and who is logged in as whom."""
    authority = tmp_path / "authority.pem"
    authority.write_text("-----BEGIN CERTIFICATE-----\n")
    authority.chmod(0o646)
    with pytest.raises(BadInput, match="chmod go-w"):
        believe(authority)


def test_a_key_of_tls_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """S6: the API took one that every user of its host may read."""
    key = tmp_path / "api.key"
    key.write_text("")
    key.chmod(0o644)
    with pytest.raises(BadInput, match="chmod 600"):
        certified(tmp_path / "api.pem", key)


@pytest.mark.sweep
@pytest.mark.parametrize(
    "command",
    [
        ["exporter", "FILE"],
        ["agent", "break-glass", "--config", "FILE", "--reason", "test"],
        ["agent", "flows", "--config", "FILE"],
        ["agent", "renew", "--config", "FILE"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_every_command_of_root_on_a_host_refuses_an_agents_file_that_others_may_write(
    tmp_path: Path, command: list[str]
) -> None:
    """S7: only `agent run` looked; the exporter and break-glass run as root and believed it."""
    config = tmp_path / "agent.yaml"
    config.write_text("{}")
    config.chmod(0o666)
    said = [str(config) if word == "FILE" else word for word in command]
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator", *said], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, "chmod go-w" in ended.stderr) == (2, True), ended.stderr


@pytest.mark.sweep
def test_an_agents_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """M6: it names the trust policy, and whom the agent obeys."""
    config = tmp_path / "agent.yaml"
    config.write_text("{}")
    config.chmod(0o666)
    command = [sys.executable, "-m", "orchestrator", "agent", "run", "--config", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, "chmod go-w" in ended.stderr) == (2, True), ended.stderr


@pytest.mark.parametrize("pins", [True, False])
def test_a_revocation_that_would_revoke_nothing_is_refused(stage: Stage, pins: bool) -> None:
    """S4: a fingerprint that no pinned OpenPGP certificate has, such as a mistyped one."""
    certificate = pysequoia.Tsk.generate("lead").extract_certificate()
    stage.change_policy(lambda policy: policy.update(revoked={"openpgp": ["A" * 40]}))
    if pins:
        (stage.lab.trust_policy.parent / "lead.asc").write_bytes(bytes(certificate))
        pinned = {"cert": "lead.asc", "fingerprint": certificate.fingerprint.upper()}
        stage.change_policy(lambda policy: policy.update(openpgp={"lead": pinned}))
    with pytest.raises(PolicyInvalid, match=r"A{40}, which is no key of a pinned certificate"):
        load_trust(stage.lab.trust_policy)


def test_a_trusted_root_with_a_key_twice_is_refused(stage: Stage) -> None:
    """Low: of two equal keys the library takes the last one, and a reader sees the first."""
    path = stage.signer.trusted_root_path
    path.write_text(path.read_text().replace("{", '{"mediaType": "x",', 1))
    stage.change_policy(
        lambda policy: policy["trust_roots"]["lab"].update(sha256=digest_of(path.read_bytes())[7:])
    )
    with pytest.raises(PolicyInvalid, match="twice"):
        load_trust(stage.lab.trust_policy)


BOMBS = {
    "aliases": "a: &a [x, x, x]\n"
    + "".join(f"{c}: &{c} [*{p}, *{p}, *{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
    "merges": "a: &a {x: 1}\n" + "".join(f"k{n}: {{<<: *a}}\n" for n in range(10_000)),
    "size": "a: " + "x" * (2 << 20),
    "depth": "[" * 100_000,
    "flow": "{a: " * 50_000,
    "columns": "".join(" " * n + "a:\n" for n in range(3000)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_of_yaml_is_refused_at_once(stage: Stage, bomb: str) -> None:
    """Low: a YAML bomb in trust.yaml hung the command."""
    stage.lab.trust_policy.write_text(BOMBS[bomb])
    started = time.monotonic()
    with pytest.raises(PolicyInvalid):
        load_trust(stage.lab.trust_policy)
    assert time.monotonic() - started < 10


def test_a_pipe_of_another_user_in_place_of_a_file_is_refused_at_once(tmp_path: Path) -> None:
    """S6's kind, a fresh reader: it was opened before anybody looked whose it was, and that never ended."""
    pipe = tmp_path / "trust.yaml"
    os.mkfifo(pipe, 0o644)
    os.chown(pipe, 65_534, 65_534)
    with pytest.raises(BadInput, match="belongs to user"):
        read_own(pipe)
