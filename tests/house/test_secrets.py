"""Secrets stay where their reference says: not in histories, logs, errors, the ledger or the store."""

import base64
import logging
import re
import secrets
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.drivers.private_files import write_private
from activities.drivers.trust_files import compose_releases
from activities.failures import as_application_errors
from activities.releases import Admitted, Releases
from orchestrator.engine.keys import read_keys
from orchestrator.engine.sealing import ENCODING, data_converter
from orchestrator.store.ledger import Ledger
from policies.model.errors import BadInput
from policies.model.verification import Scope
from tests.fakes.hostile import HostileServer, Peer, Request, blob_server
from tests.fakes.stage import CHANNEL, PRODUCT, Stage
from tests.house.tree import ROOT

OPENED_NOWHERE = re.compile(r"\bclient\.data_converter\.(?!with_context\b)\w+")
"""A use of a client's converter without the workflow or the step that a payload belongs to."""

PRIVATE_KEY = re.compile(rb"-----BEGIN (?:RSA |EC |OPENSSH |)PRIVATE KEY-----|-----BEGIN PGP PRIVATE KEY")


@workflow.defn(name="Carry")
class Carry:
    """Takes something and gives it back."""

    @workflow.run
    async def run(self, carried: str) -> str:
        """Return what was carried."""
        return carried


def leaks(folder: Path, secret: str, *known: Path) -> list[Path]:
    """Return every file under the folder that holds the secret, but for those that are meant to."""
    files = [path for path in folder.rglob("*") if path.is_file() and path not in known]
    return [path for path in files if secret.encode() in path.read_bytes()]


async def test_a_repositorys_secret_is_in_nothing_that_is_written_or_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = f"canary-{secrets.token_hex(16)}"
    reference = tmp_path / "token"
    reference.write_text(secret)
    reference.chmod(0o600)
    said: list[str] = []
    with Stage(tmp_path / "stage") as stage:

        def guarded(request: Request, peer: Peer) -> None:
            if request.headers.get("authorization") != f"Bearer {secret}":
                peer.head("403 Forbidden", Content_Length=0)
                return
            file = stage.root / request.path.lstrip("/")
            blob_server(file.read_bytes() if file.is_file() else b"")(request, peer)

        with HostileServer(guarded) as server:
            stage.lab.write_policy(allow=[server.url], credentials={server.url: f"file:{reference}"})
            releases = compose_releases(tmp_path / "store", stage.lab.trust_policy)
            admitted = await _admit(releases, stage, server.url)
            ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
            ledger.add_release(
                admitted.reference,
                source=server.url,
                signers=admitted.signers,
                manifest_json=admitted.manifest.model_dump_json(),
            )
            ledger.close()
            stage.lab.write_policy(credentials={stage.lab.url: f"file:{reference}"})
            with_secrets = (f"http://user:{secret}@127.0.0.1:9/", f"oci://x:{secret}@host/y?token={secret}")
            for source in (server.url, *with_secrets):
                with pytest.raises(Exception) as refused, as_application_errors():  # noqa: PT011 - any refusal
                    await _admit(releases, stage, source)
                said.append(f"{refused.value!r} {refused.value.__cause__!r}")
    said += [caplog.text, *capfd.readouterr()]
    assert not any(secret in text for text in said)
    assert not leaks(tmp_path, secret, reference)


async def _admit(releases: Releases, stage: Stage, source: str) -> Admitted:
    return await releases.admit(stage.digest, source, scope=Scope(product=PRODUCT, channel=CHANNEL))


def key_file(folder: Path, *names: str) -> Path:
    path = folder / f"{'-'.join(names)}.keys"
    write_private(path, "".join(f"{name}:{secrets.token_hex(32)}\n" for name in names).encode())
    return path


async def test_a_history_shows_nothing_of_what_travelled_sealed(tmp_path: Path) -> None:
    secret, keys = f"canary-{secrets.token_hex(16)}", key_file(tmp_path, "one")
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=shutil.which("temporal-test-server", path=str(Path(sys.executable).parent)),
        data_converter=data_converter(keys),
    ) as environment:
        client: Client = environment.client
        async with Worker(
            client, task_queue="house", workflows=[Carry], workflow_runner=UnsandboxedWorkflowRunner()
        ):
            handle = await client.start_workflow(
                Carry.run, secret, id="carry", task_queue="house", execution_timeout=timedelta(seconds=30)
            )
            assert await handle.result() == secret
        history = (await handle.fetch_history()).to_json()
    assert secret not in history
    assert base64.b64encode(ENCODING).decode() in history


def test_each_payload_is_opened_as_that_of_its_own_workflow_or_step() -> None:
    """Stored rollbacks were shown as nothing where payloads are sealed: they were opened as of nowhere."""
    files = [path for folder in ("orchestrator", "deploy", "tests") for path in (ROOT / folder).rglob("*.py")]
    found = {path.relative_to(ROOT): OPENED_NOWHERE.findall(path.read_text()) for path in files}
    assert {path: uses for path, uses in found.items() if uses} == {}


async def test_a_key_is_changed_by_adding_one_and_taking_the_other_away(tmp_path: Path) -> None:
    old, new = key_file(tmp_path, "old"), key_file(tmp_path, "new")
    both = tmp_path / "both.keys"
    write_private(both, (old.read_text() + new.read_text()).encode())
    sealed = await data_converter(old).encode(["carried"])
    assert await data_converter(both).decode(sealed) == ["carried"]
    meanwhile = await data_converter(both).encode(["carried"])
    for one in (old, new):
        assert await data_converter(one).decode(meanwhile) == ["carried"]
    renewed = await data_converter(new).encode(["carried"])
    assert await data_converter(both).decode(renewed) == ["carried"]
    with pytest.raises(BadInput):
        await data_converter(old).decode(renewed)


async def test_an_altered_payload_is_refused(tmp_path: Path) -> None:
    converter = data_converter(key_file(tmp_path, "one"))
    sealed = (await converter.encode(["carried"]))[0]
    altered = Payload(metadata=sealed.metadata, data=sealed.data[:-1] + bytes([sealed.data[-1] ^ 1]))
    with pytest.raises(BadInput):
        await converter.decode([altered])


@pytest.mark.parametrize("content", ["", "one", "one:zz", "one:00", ":" + "00" * 32])
def test_a_key_file_that_holds_no_keys_is_refused_without_quoting_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    write_private(path, content.encode())
    with pytest.raises(BadInput):
        read_keys(path)


def test_a_key_file_that_is_missing_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="none is not there: penstock agent renew gets that of a gateway"):
        read_keys(tmp_path / "none")


def test_a_key_file_that_this_process_may_not_read_is_said_to_be_another_users(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(BadInput, match="has to belong to the user whom this process runs as"):
        read_keys(tmp_path / "folder")


def test_nothing_kept_in_the_repository_holds_a_private_key() -> None:
    kept = [path for place in ROOT.iterdir() if not _is_made(place) for path in _files_in(place)]
    assert kept
    assert not [path for path in kept if path.suffix != ".py" and PRIVATE_KEY.search(path.read_bytes())]


def test_no_recorded_history_holds_a_credential() -> None:
    histories = list((ROOT / "tests/replay").rglob("*.json"))
    assert histories
    for path in histories:
        assert not re.search(rb"passw|secret|token\"|PRIVATE", _opened(path.read_bytes()), re.IGNORECASE)


def _opened(history: bytes) -> bytes:
    """Return a recorded history with the payloads in it readable."""
    payloads = re.findall(rb'"data": ?"([A-Za-z0-9+/=]+)"', history)
    return b"\n".join([history, *(base64.b64decode(data) for data in payloads)])


def _is_made(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return parts[0].startswith(".") or "__pycache__" in parts


def _files_in(place: Path) -> list[Path]:
    """Return the files there that were not made by running; what other tests make is not even looked into."""
    found = [place] if place.is_file() else place.rglob("*")
    return [path for path in found if path.is_file() and not _is_made(path)]
