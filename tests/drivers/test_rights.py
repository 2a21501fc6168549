"""Files that decide what may run: loose rights and doubtful content are refused."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pysequoia
import pytest

from activities.drivers.credentials import Credentials
from activities.drivers.rights import require_own
from activities.drivers.trust_files import load_trust
from activities.refusals import PolicyInvalid
from policies.model.errors import BadInput
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
