"""The way back on a real gateway by real verification: a key that has ended since holds up no start."""

import json
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pysequoia
import pytest

from activities.drivers.trust_files import compose_releases
from activities.releases import Releases
from deploy.lab.releases import LabReleases
from deploy.lab.repository import RepositoryServer
from orchestrator.publishing.folder import add_signature, read_statement
from orchestrator.publishing.signing import sign_openpgp
from policies.model.instance import InstanceState
from policies.model.plan import ReleaseRef
from policies.model.refusals import SignerRevoked
from policies.model.value import digest_of
from tests.drivers.gateway_fixtures import (  # noqa: F401 - fixtures
    ON_A_REAL_GATEWAY,
    built_lab,
    lab,
)
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.patience import until

pytestmark = ON_A_REAL_GATEWAY

MOST_TOLD = 500
"""Characters of a sentence of a host: what is longer is cut off on its way."""
AWAY = "http://127.0.0.1:1"
YEAR = timedelta(days=365)


@dataclass
class Signed:
    """A gateway whose known-good was signed by one OpenPGP key of a year, and whose repository is gone."""

    lab: GatewayLab
    trust: Path
    fingerprint: str
    monkeypatch: pytest.MonkeyPatch
    now: datetime | None = None
    """What the host's clock shows to its verification, instead of the time."""

    async def serves(self, source: str, digest: str) -> tuple[str, ReleaseRef]:
        """Have the release serve for good; return its slot and what it is."""
        releases = self.restarted()
        release = (await releases.admit(digest, source)).reference
        await self.lab.slots.stage(operation("stage"), release, source)
        slot = (await self.lab.slots.start(operation("start"), release)).slot
        await self.lab.table.make_permanent(operation("keep"), slot)
        releases.promote(release.digest)
        return slot, release

    def restarted(self) -> Releases:
        """Make the parts of the agent anew, with the real verification of releases."""
        releases = compose_releases(
            self.lab.root / "store",
            self.trust,
            product="ocserv",
            channel="stable",
            clock=lambda: self.now or datetime.now(UTC),
        )
        self.monkeypatch.setattr(self.lab, "_made_admission", lambda: releases)
        self.lab.compose()
        return releases

    async def reboots(self) -> None:
        """End every daemon, and have the agent be started anew."""
        for pid in self.lab.daemons():
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not any(folder.process() for folder in self.lab.folders))
        self.restarted()

    def revoke(self) -> None:
        """Withdraw the key in the host's trust policy."""
        policy = json.loads(self.trust.read_text()) | {"revoked": {"openpgp": [self.fingerprint]}}
        self.trust.write_text(json.dumps(policy))

    def leave(self) -> None:
        """Have the host's trust policy name somebody else in the signer's place."""
        policy = json.loads(self.trust.read_text())
        policy["rules"][0]["groups"]["lead"] = policy["rules"][0]["groups"]["builder"]
        self.trust.write_text(json.dumps(policy))

    def withdraw(self, digest: str) -> None:
        """Withdraw the release in the host's trust policy."""
        revoked = {"revoked": {"manifests": [digest.removeprefix("sha256:")]}}
        self.trust.write_text(json.dumps(json.loads(self.trust.read_text()) | revoked))


@asynccontextmanager
async def signed(
    lab: GatewayLab,  # noqa: F811
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[Signed, str, ReleaseRef]]:
    root = folder / "repository"
    root.mkdir()
    server = RepositoryServer(("127.0.0.1", 0), root)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    published = LabReleases(folder / "trust", root, server.url, product="ocserv")
    key = pysequoia.Tsk.generate("lead", validity_seconds=int(YEAR.total_seconds()))
    certificate = key.extract_certificate()
    (folder / "trust/lead.asc").write_bytes(bytes(certificate))
    (folder / "lead.tsk").write_bytes(bytes(key))
    policy = json.loads(published.trust_policy.read_text())
    policy["openpgp"] = {"lead": {"cert": "lead.asc", "fingerprint": certificate.fingerprint.upper()}}
    policy["rules"][0]["groups"]["lead"] = [{"openpgp": "lead"}]
    policy["rules"][0]["require"] = [{"group": "lead"}]
    published.trust_policy.write_text(json.dumps(policy))
    tree, template = lab.admission.tree, lab.admission.template
    digest = published.publish(tree, template, version="1.3.0", rollback_index=1, signers=[])
    signature = sign_openpgp(read_statement(root, digest), folder / "lead.tsk")
    add_signature(root, digest, "openpgp", signature)
    host = Signed(lab, published.trust_policy, certificate.fingerprint.upper(), monkeypatch)
    try:
        slot, release = await host.serves(server.url, digest)
    finally:
        server.shutdown()
        server.server_close()
    try:
        yield host, slot, release
    finally:
        monkeypatch.undo()
        lab.compose()


async def test_after_a_reboot_known_good_is_started_though_its_signers_key_has_ended(
    lab: GatewayLab,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with signed(lab, tmp_path, monkeypatch) as (host, slot, _):
        host.now = datetime.now(UTC) + 2 * YEAR
        await host.reboots()
        state = await lab.slots.resume()
        assert (state.instance(slot).state, state.changed) == (InstanceState.RUNNING, True)
        await lab.client(1).up()
        assert await lab.home_of(1) == slot


async def test_a_rollback_starts_known_good_without_its_repository_though_its_signers_key_has_ended(
    lab: GatewayLab,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with signed(lab, tmp_path, monkeypatch) as (host, _, release):
        host.now = datetime.now(UTC) + 2 * YEAR
        await host.reboots()
        await lab.slots.stage(operation("stage", epoch=2), release, AWAY)
        started = await lab.slots.start(operation("start", epoch=2), release)
        assert started.state.instance(started.slot).state is InstanceState.RUNNING


async def test_after_a_reboot_known_good_of_a_revoked_key_is_left_as_failed_also_once_the_key_has_ended(
    lab: GatewayLab,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with signed(lab, tmp_path, monkeypatch) as (host, slot, release):
        host.revoke()
        host.now = datetime.now(UTC) + 2 * YEAR
        await host.reboots()
        assert (await lab.slots.resume()).instance(slot).state is InstanceState.FAILED
        with pytest.raises(SignerRevoked):
            await lab.slots.stage(operation("stage", epoch=2), release, AWAY)


async def test_before_an_upgrade_a_host_says_that_it_would_not_start_again_what_serves(
    lab: GatewayLab,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The old daemon runs until its drain has ended; from then on there was no way back, and nobody knew."""
    async with signed(lab, tmp_path, monkeypatch) as (host, slot, release):
        other = release.model_copy(update={"digest": digest_of(b"another"), "version": "1.4.0"})
        assert await lab.slots.preflight(other, AWAY) == ()
        host.leave()
        [why] = await lab.slots.preflight(other, AWAY)
        assert why.startswith("ocserv 1.3.0 serves and would not be started again")
        assert f"penstock release sign {release.digest} --replace" in why
        assert "penstock release yank 1.3.0 --reason TEXT" in why
        assert "SignerNotAllowed: " in why
        assert len(why) <= MOST_TOLD
        assert await lab.slots.preflight(other, AWAY, given_up=True) == ()
        host.withdraw(release.digest)
        assert await lab.slots.preflight(other, AWAY) == ()
        host.restarted()
        await host.reboots()
        assert (await lab.slots.resume()).instance(slot).state is InstanceState.FAILED


async def test_a_signer_who_left_holds_up_no_way_back_to_what_runs(
    lab: GatewayLab,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with signed(lab, tmp_path, monkeypatch) as (host, slot, release):
        host.leave()
        assert await lab.slots.preflight(release, AWAY) != ()
        restored = await lab.slots.restore(operation("back", epoch=2), release)
        assert (restored.back, restored.slot) == (True, slot)
        await lab.slots.reload(operation("reload", epoch=2), older=False)
