"""An index is signed anew before it ends, and whoever writes to the repository gains nothing by it."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from activities.drivers.trust_files import load_trust
from orchestrator.cli import release
from orchestrator.publishing import renewal
from orchestrator.publishing.builder import index_statement
from orchestrator.publishing.folder import add_signature, offer, offered, publish, read_statement
from orchestrator.publishing.renewal import Channel, Renewal
from orchestrator.publishing.signing import Signer, sign_cms
from policies.model.errors import BadInput, PenstockError
from policies.model.refusals import ReplayDetected, SignatureMissing, SignerNotAllowed
from policies.model.release import ChannelIndex, CurrentRelease
from policies.trust.statements import parse_index
from tests.fakes.authority import EnterpriseCa

UNITS = Path(__file__).parents[2] / "deploy/publishing"
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
GONE, CURRENT = "1" * 64, "2" * 64


class Publisher:
    """Who keeps a channel: a repository, an authority, and one key that may sign indexes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "repository"
        self.corp = EnterpriseCa(folder / "corp")
        self.signer = self.signer_of("publisher@corp.example")
        rule = {
            "product": "gw",
            "channel": "stable",
            "groups": {"publisher": [{"cms": "corp", "identity": "publisher@corp.example"}]},
            "require": [{"group": "publisher"}],
            "index_group": "publisher",
        }
        policy = {"version": 1, "cms": {"corp": {"roots": "corp/roots.pem"}}, "rules": [rule]}
        policy |= {"sources": {"allow": ["https://releases.corp.example"]}}
        self.trust = folder / "trust.yaml"
        self.trust.write_text(json.dumps(policy))

    def signer_of(self, identity: str) -> Signer:
        self.key, self.certificate = self.corp.leaf(identity, starts=-DAY)
        key, certificate = self.key, self.certificate
        return Signer("cms", lambda said: sign_cms(said, key, certificate))

    def index(self, serial: int, *, left: timedelta, signer: Signer | None = None) -> str:
        """Offer an index that ends in that time, signed unless somebody else is to."""
        current = [CurrentRelease(manifest_sha256=CURRENT, rollback_index=3)]
        issued = NOW + left - 7 * DAY
        statement = index_statement(
            *("gw", "stable", current), serial=serial, issued_at=issued, revoked=[GONE], security_floor=2
        )
        digest = publish(self.root, statement, [], {})
        by = signer or self.signer
        add_signature(self.root, digest, by.kind, by.sign(statement))
        offer(self.root, "gw", "stable", digest)
        return digest

    def renew(self, signer: Signer | None = None, now: datetime = NOW) -> Renewal:
        channel = Channel(self.root, "gw", "stable", load_trust(self.trust), self.folder / "seen")
        return channel.renew(signer or self.signer, now, within=4 * DAY, days=7)

    @property
    def current(self) -> ChannelIndex:
        """The index that hosts would read now."""
        return parse_index(read_statement(self.root, offered(self.root, "gw", "stable")))


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)


def test_an_index_that_is_not_near_its_end_is_left_alone(publisher: Publisher) -> None:
    digest = publisher.index(5, left=5 * DAY)
    assert publisher.renew() == Renewal(digest, 5, NOW + 5 * DAY, new=False)
    assert offered(publisher.root, "gw", "stable") == digest


@pytest.mark.parametrize("left", [3 * DAY, timedelta(hours=1), -2 * DAY])
def test_an_index_near_its_end_or_past_it_says_the_same_for_seven_days_more(
    publisher: Publisher, left: timedelta
) -> None:
    publisher.index(5, left=left)
    before = publisher.current
    done = publisher.renew()
    after = publisher.current
    assert (done.new, done.serial, done.expires_at) == (True, 6, NOW + 7 * DAY)
    same = {"serial", "issued_at", "expires_at"}
    assert after.model_dump(exclude=same) == before.model_dump(exclude=same)
    assert (after.revoked, after.security_floor) == ((GONE,), 2)
    assert publisher.renew().new is False


def test_a_strangers_index_is_never_signed(publisher: Publisher) -> None:
    digest = publisher.index(9, left=DAY, signer=publisher.signer_of("intruder@corp.example"))
    with pytest.raises(SignerNotAllowed):
        publisher.renew()
    shutil.rmtree(publisher.root / "signatures")
    with pytest.raises(SignatureMissing):
        publisher.renew()
    assert offered(publisher.root, "gw", "stable") == digest


def test_an_old_index_that_is_put_back_is_not_made_new_again(publisher: Publisher) -> None:
    old = publisher.index(5, left=DAY)
    publisher.index(6, left=5 * DAY)
    publisher.renew()
    offer(publisher.root, "gw", "stable", old)
    with pytest.raises(ReplayDetected, match=r"serial 5, and .* has seen 6; make and sign one"):
        publisher.renew()
    publisher.index(6, left=DAY)
    with pytest.raises(ReplayDetected):
        publisher.renew()


def test_a_key_that_hosts_do_not_trust_renews_nothing(publisher: Publisher) -> None:
    digest = publisher.index(5, left=DAY)
    with pytest.raises(SignerNotAllowed):
        publisher.renew(publisher.signer_of("somebody@corp.example"))
    assert offered(publisher.root, "gw", "stable") == digest


@pytest.mark.parametrize("lapsed", [True, False])
def test_a_signature_by_nobody_of_the_policy_keeps_no_index_from_being_renewed(
    publisher: Publisher, lapsed: bool
) -> None:
    digest = publisher.index(4, left=DAY)
    ends = -timedelta(minutes=1) if lapsed else DAY
    statement = read_statement(publisher.root, digest) if lapsed else b"other"
    mallory = publisher.corp.sign(statement, "mallory@corp.example", starts=-DAY, ends=ends)
    add_signature(publisher.root, digest, "cms", mallory)
    assert publisher.renew().serial == 5


@pytest.mark.parametrize("step", ["publish", "add_signature", "offer", "_note"])
def test_whoever_is_killed_in_the_middle_leaves_a_signed_index_and_the_next_goes_on(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    publisher.index(4, left=5 * DAY)
    publisher.renew()
    publisher.index(5, left=DAY)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Channel if step == "_note" else renewal, step, killed)
        with pytest.raises(KeyboardInterrupt):
            publisher.renew()
    assert publisher.current.serial == (6 if step == "_note" else 5)
    assert publisher.renew().serial == 6
    assert publisher.renew().new is False


def test_the_command_says_what_it_did_and_what_is_wrong(publisher: Publisher) -> None:
    place = ["refresh", "--repository", str(publisher.root), "--product", "gw"]
    keys = ["--cms-key", str(publisher.key), "--cms-certificates", str(publisher.certificate)]
    files = ["--trust", str(publisher.trust), "--seen", str(publisher.folder / "seen")]

    def run(*more: str) -> str:
        result = CliRunner().invoke(release.app, [*place, *keys, *files, *more])
        if isinstance(result.exception, PenstockError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    with pytest.raises(BadInput, match="offers no index of gw/stable; make one"):
        run()
    publisher.index(5, left=DAY)
    with pytest.raises(BadInput, match="let --within be shorter"):
        run("--within", "7d")
    assert "gw/stable: signed anew; serial 6 is good until " in run()
    assert "gw/stable: not near its end; serial 6 is good until " in run()
    before = publisher.root.stat().st_mode
    assert before & 0o005 == 0o005


def verified(unit: Path) -> str:
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"}
    )
    return "\n".join(line for line in done.stderr.splitlines() if unit.stem in line)


def test_the_timers_units_are_what_systemd_reads(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    change: Callable[[str], str] = lambda text: text.replace("/usr/bin/penstock", "/bin/true")  # noqa: E731
    for unit in UNITS.iterdir():
        (tmp_path / unit.name).write_text(change(unit.read_text()))
    assert verified(tmp_path / "penstock-index.timer") == ""
    assert verified(tmp_path / "penstock-index.service") == ""
    (tmp_path / "penstock-index.service").write_text("[Service]\nExecStart=nothing\n")
    assert "penstock-index.service" in verified(tmp_path / "penstock-index.service")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize("spoiled", [pipe, endless, huge])
@pytest.mark.parametrize("which", ["channels/gw/stable", "statements/sha256/*", "signatures/sha256/*.json"])
def test_whoever_writes_to_the_repository_keeps_no_signer_waiting_and_takes_no_memory(
    publisher: Publisher, spoiled: Callable[[Path], None], which: str
) -> None:
    publisher.index(1, left=DAY)
    [path] = publisher.root.glob(which)
    spoiled(path)
    began = time.monotonic()
    with pytest.raises(BadInput, match=path.name):
        publisher.renew()
    assert time.monotonic() - began < 2
