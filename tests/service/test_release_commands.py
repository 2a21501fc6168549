"""The commands about releases, from a tree to the ledger and back, with a real repository behind them."""

import asyncio
import hashlib
import json
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pysequoia
import pytest
from typer.testing import CliRunner, Result

from deploy.lab.repository import RepositoryServer
from deploy.lab.signer import LabSigner
from orchestrator.cli import audit, release
from orchestrator.cli import bundle as bundle_command
from orchestrator.cli.client import Problem
from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.composition import compose
from orchestrator.settings import Settings
from orchestrator.store.ledger import Ledger
from policies.model.errors import BadInput, PenstockError
from policies.model.refusals import SignatureMissing, TrustError
from tests.fakes.authority import EnterpriseCa
from tests.fakes.trees import small_tree

FLEET = """
name: edge
product: ocserv-gw
gateways:
  - name: gw-1
    addresses: [10.0.0.1]
    slots:
      - {name: a, port: 1443, device: vpna, pool4: 10.1.0.0/24}
      - {name: b, port: 2443, device: vpnb, pool4: 10.2.0.0/24}
"""


class Desk:
    """Somebody at a terminal: a repository they fill, an installation they ask."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.repository = folder, folder / "repository"
        tree, template = small_tree(folder)
        self.build = [
            *["build", str(tree), "--repository", str(self.repository), "--template", str(template)],
            *["--product", "ocserv-gw", "--version", "1.3.0", "--rollback-index", "1", "--serial", "1"],
        ]
        key = pysequoia.Tsk.generate("lead")
        certificate = key.extract_certificate()
        (folder / "lead.key").write_bytes(bytes(key))
        (folder / "lead.asc").write_bytes(bytes(certificate))
        self.corp = EnterpriseCa(folder / "corp")
        self.cms_key, self.cms_certificate = self.corp.leaf("build@corp.example")
        groups = {
            "builder": [{"cms": "corp", "identity": "build@corp.example", "person": "bea"}],
            "manager": [{"openpgp": "lead", "person": "lea"}],
        }
        policy = {
            "version": 1,
            "openpgp": {"lead": {"cert": "lead.asc", "fingerprint": certificate.fingerprint.upper()}},
            "cms": {"corp": {"roots": "corp/roots.pem"}},
            "rules": [
                {
                    "product": "ocserv-gw",
                    "channel": "stable",
                    "groups": groups,
                    "require": [{"group": "builder"}, {"group": "manager"}],
                    "index_group": "manager",
                }
            ],
            "sources": {"allow": [url]},
        }
        (folder / "trust.yaml").write_text(json.dumps(policy))
        (folder / "fleet.yaml").write_text(FLEET)

    async def ask(self, *arguments: str) -> Result:
        """Give a command that asks the API, which answers meanwhile."""
        return await asyncio.to_thread(self.run, *arguments)

    def run(self, *arguments: str) -> Result:
        """Give a command and return what came of it; an error of ours is raised."""
        result = CliRunner().invoke(release.app, list(arguments))
        if isinstance(result.exception, PenstockError | Problem):
            raise result.exception
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result

    def sign(self, digest: str, *with_what: str) -> None:
        """Sign a statement of the repository."""
        self.run("sign", digest, "--repository", str(self.repository), *with_what)

    def published(self) -> str:
        """Build, sign and index a release as two people do; return its digest."""
        digest = self.run(*self.build).output.strip()
        cms = ["--cms-key", str(self.cms_key), "--cms-certificates", str(self.cms_certificate)]
        self.sign(digest, *cms)
        openpgp = ["--openpgp-key", str(self.folder / "lead.key")]
        self.sign(digest, *openpgp)
        place = ["--repository", str(self.repository), "--product", "ocserv-gw"]
        index = self.run("index", *place, "--serial", "1", "--release", digest).output.strip()
        self.sign(index, *openpgp)
        return digest


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    (tmp_path / "repository").mkdir()
    with RepositoryServer(("127.0.0.1", 0), tmp_path / "repository") as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        settings = {
            "SOURCE": server.url,
            "STORE": str(tmp_path / "store"),
            "TRUST": str(tmp_path / "trust.yaml"),
            "FLEET": str(tmp_path / "fleet.yaml"),
            "LEDGER_URL": f"sqlite:///{tmp_path / 'ledger.db'}",
            "PEOPLE": str(tmp_path / "people.yaml"),
            "SOCKET": str(tmp_path / "penstock.sock"),
            "AUDIT_KEY": str(tmp_path / "audit.key"),
            "AUDIT_CHECKPOINTS": str(tmp_path / "checkpoints.jsonl"),
            "TEMPORAL_ADDRESS": "127.0.0.1:1",
        }
        monkeypatch.setattr(Settings, "file", tmp_path / "penstock.toml")
        for name, value in settings.items():
            monkeypatch.setenv(f"PENSTOCK_{name}", value)
        installation = await compose(Settings())
        async with serving(installation.service, socket_at(tmp_path / "penstock.sock")):
            yield Desk(tmp_path, server.url)
        server.shutdown()


async def test_a_release_goes_from_a_tree_into_the_ledger(desk: Desk) -> None:
    digest = desk.published()
    assert "needs 1 of builder and 1 of manager" in (await desk.ask("verify", digest)).output
    assert "signed by builder: bea as build@corp.example" in (await desk.ask("add", digest)).output
    listed = json.loads((await desk.ask("list", "-o", "json")).output)
    assert [row["release"]["digest"] for row in listed["data"]] == [digest]
    assert "1.3.0" in (await desk.ask("list")).output
    assert (
        json.loads((await desk.ask("show", "1.3.0", "-o", "json")).output)["data"]["release"]["digest"]
        == digest
    )
    assert "is withdrawn" in (await desk.ask("yank", digest, "--reason", "found a hole")).output
    assert "was withdrawn before" in (await desk.ask("yank", digest, "--reason", "again")).output
    assert "withdrawn:" in (await desk.ask("list")).output


async def test_without_a_repository_in_the_settings_people_hear_what_to_set(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PENSTOCK_SOURCE")
    socket = desk.folder / "other.sock"
    monkeypatch.setenv("PENSTOCK_SOCKET", str(socket))
    async with serving((await compose(Settings())).service, socket_at(socket)):
        for verb in ("add", "verify"):
            with pytest.raises(
                Problem, match=r"no release repository is set: set PENSTOCK_SOURCE to .*trust\.yaml"
            ):
                await desk.ask(verb, "sha256:" + "0" * 64)


async def test_the_same_tree_makes_the_same_release_but_for_its_date(desk: Desk) -> None:
    first = desk.run(*desk.build).output.strip()
    blobs = sorted((desk.repository / "blobs/sha256").iterdir())
    desk.run(*desk.build)
    assert sorted((desk.repository / "blobs/sha256").iterdir()) == blobs
    assert first.startswith("sha256:")


async def test_the_changelog_is_signed_with_the_release_and_shown(desk: Desk) -> None:
    changelog = desk.folder / "changes.md"
    changelog.write_bytes("\ufeff## 1.3.0\r\n\r\n- longer naps\r\n".encode())
    desk.build += ["--changelog", str(changelog)]
    await desk.ask("add", desk.published())
    shown = (await desk.ask("show", "1.3.0")).output
    assert shown.endswith("  ## 1.3.0\n  \n  - longer naps\n")
    for wrong, named in (
        (b"caf\xe9", "is not UTF-8 text"),
        ("fine \u202egnorw".encode(), r"changes\.md: the changelog has U\+202E in line 1, character 6"),
        (b"x" * 20_000, r"has 20000 bytes; 16384 at most"),
    ):
        changelog.write_bytes(wrong)
        with pytest.raises(BadInput, match=named):
            desk.run(*desk.build)


async def test_who_had_what_fetched_is_in_the_audit_record_refused_or_not(desk: Desk) -> None:
    digest = desk.published()
    await desk.ask("verify", digest)
    (desk.repository / "signatures" / digest.replace(":", "/")).with_suffix(".json").unlink()
    with pytest.raises(Problem):
        await desk.ask("add", digest)
    ledger = Ledger.open(f"sqlite:///{desk.folder / 'ledger.db'}")
    fetched = [entry for entry in ledger.audit_entries() if entry.action == "release fetched"]
    assert [(entry.person, entry.subject, entry.fleet) for entry in fetched] == [("root", digest, "edge")] * 2
    first, second = (json.loads(entry.body) for entry in fetched)
    assert (first["verdict"], second["verdict"]) == ("Admitted", "SignatureMissing")
    for said in (first, second):
        place = f"{said['from']}/statements/{digest.replace(':', '/')}"
        assert [line.split()[0] for line in said["answers"] if line.endswith(place)] == ["200"]
    assert f"1.3.0 {digest} from {first['from']}: {len(first['answers'])} answers of " in first["said"]


async def test_an_unsigned_release_is_not_added(desk: Desk) -> None:
    digest = desk.run(*desk.build).output.strip()
    place = ["--repository", str(desk.repository), "--product", "ocserv-gw"]
    desk.run("index", *place, "--serial", "1", "--release", digest)
    with pytest.raises(Problem) as refused:
        await desk.ask("add", digest)
    assert refused.value.code == SignatureMissing.__name__
    assert refused.value.exit_code == 5
    assert "No releases yet" in (await desk.ask("list")).output


@pytest.mark.parametrize(
    "keys", [[], ["--openpgp-key", "{lead}", "--cms-key", "{lead}"], ["--cms-key", "{lead}"]]
)
async def test_signing_takes_exactly_one_kind_of_key(desk: Desk, keys: list[str]) -> None:
    digest = desk.run(*desk.build).output.strip()
    with pytest.raises(BadInput):
        desk.sign(digest, *[key.format(lead=desk.folder / "lead.key") for key in keys])
    with pytest.raises(BadInput):
        desk.sign(f"sha256:{'0' * 64}", "--openpgp-key", str(desk.folder / "lead.key"))


async def test_a_sigstore_configuration_that_is_none_signs_nothing(desk: Desk) -> None:
    digest = desk.run(*desk.build).output.strip()
    none = str(desk.folder / "fleet.yaml")
    with pytest.raises(BadInput):
        desk.sign(digest, "--sigstore-config", none, "--identity-token", none)


async def test_what_is_not_in_the_ledger_is_not_shown(desk: Desk) -> None:
    with pytest.raises(Problem, match="no release"):
        await desk.ask("show", "9.9")


async def test_old_verdicts_are_recomputed_offline(desk: Desk) -> None:
    await desk.ask("verify", desk.published())
    (desk.folder / "trust.yaml").unlink()
    result = CliRunner().invoke(audit.app, ["reverify"])
    assert result.exit_code == 0, result.output
    assert "Admitted, same today" in result.output
    result = CliRunner().invoke(audit.app, ["reverify", "--line", "7"])
    assert isinstance(result.exception, BadInput)


@pytest.mark.parametrize("damage", ["a socket", "an executable that is missing", "a name too long"])
async def test_a_tree_that_cannot_be_a_release_is_refused(desk: Desk, damage: str) -> None:
    tree = desk.folder / "tree"
    match damage:
        case "a socket":
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(str(tree / "socket"))
        case "an executable that is missing":
            (tree / "usr/sbin/ocserv").unlink()
        case _:
            (tree / ("x" * 200)).write_text("long")
    with pytest.raises(BadInput):
        desk.run(*desk.build)


# --- single bundles -------------------------------------------------------------------------

WHO, ISSUER = "bot@lab.example", "https://idp.lab.example"


@pytest.fixture
def bundle(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Return a blob, a bundle over it, and the trusted root."""
    signer = LabSigner(tmp_path / "signer")
    (tmp_path / "blob").write_bytes(b"blob")
    (tmp_path / "bundle").write_bytes(signer.sign_blob(b"blob", WHO, ISSUER))
    return tmp_path / "blob", tmp_path / "bundle", signer.trusted_root_path


def test_a_bundle_is_verified_for_a_file_or_a_digest(bundle: tuple[Path, Path, Path]) -> None:
    blob, path, root = bundle
    digest = f"sha256:{hashlib.sha256(b'blob').hexdigest()}"
    for subject in (str(blob), digest):
        bundle_command.verify_bundle(subject, path, WHO, ISSUER, root)
    with pytest.raises(TrustError):
        bundle_command.verify_bundle(f"sha256:{'0' * 64}", path, WHO, ISSUER, root)
    with pytest.raises(TrustError):
        bundle_command.verify_bundle(str(blob), path, WHO, ISSUER)


def test_a_bundle_of_a_called_workflow_is_verified_for_the_repository_that_is_named(
    bundle: tuple[Path, Path, Path],
) -> None:
    blob, path, root = bundle
    workflow = "https://ci.example/acme/workflows/.github/workflows/sign.yml@refs/tags/v1"
    signer, caller = LabSigner(root.parent), "https://ci.example/acme/vpn"
    path.write_bytes(signer.sign_blob(b"blob", workflow, ISSUER, source_repository=caller))
    with pytest.raises(TrustError, match=f"called by {caller}.*--source-repository {caller}"):
        bundle_command.verify_bundle(str(blob), path, workflow, ISSUER, root)
    bundle_command.verify_bundle(str(blob), path, workflow, ISSUER, root, source_repository=caller)


def test_what_cannot_be_verified_is_named(bundle: tuple[Path, Path, Path]) -> None:
    blob, path, root = bundle
    with pytest.raises(BadInput, match="--key is not supported"):
        bundle_command.verify_bundle(str(blob), path, key=root)
    with pytest.raises(BadInput, match="--certificate-identity"):
        bundle_command.verify_bundle(str(blob), path, WHO)
    with pytest.raises(BadInput, match="cannot be read"):
        bundle_command.verify_bundle("sha256:123", path, WHO, ISSUER, root)
