"""Users and folders of the orchestrator's package, tried by processes that are these users."""

import os
import re
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from activities.drivers.store.snapshots import SnapshotArchive
from activities.files import FleetFiles
from orchestrator.service.checkpoints import Checkpoints, signing_key
from orchestrator.service.description_file import DescriptionFile
from orchestrator.store.ledger import Ledger
from orchestrator.umask import keep_to_itself
from policies.model.errors import BadInput, Unavailable
from policies.model.value import digest_of

PACKAGE = Path(__file__).parents[2] / "deploy/debian/penstock"
NUMBERS = {"root": 0, "penstock": 64_001, "penstock-api": 64_002, "penstock-relay": 64_003}
NUMBERS |= {"penstock-chat": 64_004}
SNAPSHOT = b"what a gateway was found with"
EDGE = b"""\
apiVersion: penstock/v1
name: edge
product: ocserv
gateways:
  - name: gw-1
    addresses: [192.0.2.1]
    slots:
      - {name: a, port: 4441, device: oca, pool4: 10.0.0.0/24}
      - {name: b, port: 4442, device: ocb, pool4: 10.0.1.0/24}
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes other users")


@pytest.fixture
def folders() -> Iterator[Path]:
    """The folders as systemd-tmpfiles makes them, below another root that everybody may enter."""
    root = Path(tempfile.mkdtemp(prefix="penstock-users-"))
    root.chmod(0o755)
    for line in (PACKAGE / "usr/lib/tmpfiles.d/penstock.conf").read_text().splitlines():
        if not line.startswith("#"):
            _, path, mode, user, group = line.split()
            folder = root / path.removeprefix("/")
            folder.mkdir(parents=True)
            os.chown(folder, NUMBERS[user], NUMBERS[group])
            folder.chmod(int(mode, 8))
    yield root / "var/lib"
    shutil.rmtree(root)


@pytest.fixture
def ledgers(folders: Path, tmp_path: Path) -> None:
    """One for the worker and one for the API, made before: their users may not enter our libraries."""
    made = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    made.engine.dispose()
    for folder, user in (("penstock-orchestrator", "penstock"), ("penstock-api", "penstock-api")):
        shutil.copy(tmp_path / "ledger.db", folders / folder)
        os.chown(folders / folder / "ledger.db", NUMBERS[user], NUMBERS[user])


def as_unit(name: str, work: Callable[[], None]) -> None:
    """Do the work in a process with the user of the unit and its mask of new files, as far as that counts."""
    unit = (PACKAGE / f"lib/systemd/system/penstock-{name}.service").read_text()
    (user,), (mask,) = (re.findall(rf"^{key}=(\S+)$", unit, re.MULTILINE) for key in ("User", "UMask"))
    child = os.fork()
    if child == 0:
        ended = 1
        try:
            os.setgroups([])
            os.setresgid(*[NUMBERS[user]] * 3)
            os.setresuid(*[NUMBERS[user]] * 3)
            os.umask(int(mask, 8))
            keep_to_itself()
            work()
            ended = 0
        except BaseException:  # noqa: BLE001 - the test's process reports it
            traceback.print_exc()
        finally:
            os._exit(ended)
    assert os.waitpid(child, 0)[1] == 0, f"as {user}: see the error above"


def test_the_api_reads_what_the_worker_keeps_as_evidence_and_neither_writes_nor_signs_it(
    folders: Path, ledgers: None
) -> None:
    """S5: worker and API were one user, so the API had the keys of the audit record and of all gateways."""
    evidence, own = folders / "penstock-evidence", folders / "penstock-orchestrator"
    kept, digest = evidence / "audit-checkpoints.jsonl", digest_of(SNAPSHOT)

    def work() -> None:
        ledger = Ledger.open(f"sqlite:///{own / 'ledger.db'}")
        ledger.audit("ana", "cli", "looked", "edge", {})
        points = Checkpoints(ledger, own / "audit.key", kept)
        points.publish()
        points.note()
        SnapshotArchive(evidence / "snapshots").add(digest, 0, SNAPSHOT, len(SNAPSHOT))

    def answer() -> None:
        ledger = Ledger.open(f"sqlite:///{folders / 'penstock-api/ledger.db'}")
        points = Checkpoints(ledger, folders / "penstock-api/audit.key", kept)
        assert (points.newest_entry, len(points.public_key)) == (1, 64)
        archive = SnapshotArchive(evidence / "snapshots")
        assert archive.read(digest) == SNAPSHOT
        with pytest.raises(PermissionError):
            archive.add(digest_of(b"another"), 0, b"another", len(b"another"))
        ledger.audit("eve", "cli", "looked", "edge", {})
        ledger.audit("eve", "cli", "looked", "edge", {})
        with pytest.raises(Unavailable, match="Permission denied"):
            points.note(now=True)
        with pytest.raises(BadInput, match="Permission denied"):
            points.part_from(0)
        for path in (own / "audit.key", own / "ledger.db"):
            with pytest.raises(PermissionError):
                path.read_bytes()
        with pytest.raises((BadInput, PermissionError)):
            signing_key(own / "audit.key")

    as_unit("worker", work)
    as_unit("api", answer)


def test_the_worker_reads_the_fleets_that_the_api_describes_and_nothing_else_of_it(folders: Path) -> None:
    """S5: the other way round, a worker has no session, no token and no key of the API's TLS."""
    file, own = folders / "penstock-fleets/edge.yaml", folders / "penstock-api"

    def describe() -> None:
        DescriptionFile(file).replace(EDGE, None)
        assert FleetFiles(file.parent).fleet("edge").product == "ocserv"
        (own / "page.name").write_text("a name")

    def work() -> None:
        described = FleetFiles(file.parent, of=NUMBERS["penstock-api"])
        assert described.fleet("edge").product == "ocserv"
        [wrong] = FleetFiles(file.parent).wrong()
        assert f"user {NUMBERS['penstock-api']}" in str(wrong)
        with pytest.raises(BadInput, match="cannot be written"):
            DescriptionFile(file).replace(b"fleet: core\n", digest_of(EDGE))
        with pytest.raises(PermissionError):
            (own / "page.name").read_bytes()

    as_unit("api", describe)
    as_unit("worker", work)


@pytest.mark.parametrize("name", ["relay", "chat"])
def test_relay_and_chat_enter_no_folder_of_another_process(folders: Path, name: str) -> None:
    """S5: evidence and descriptions are shared by worker and API alone."""

    def look() -> None:
        for folder in folders.iterdir():
            if folder.name != f"penstock-{name}":
                with pytest.raises(PermissionError):
                    list(folder.iterdir())

    as_unit(name, look)
