"""What trust costs: download + hash + store against `curl | openssl dgst`, and two-signature verification."""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from activities.drivers.source.download import download
from activities.drivers.source.transport import Transport
from activities.drivers.store.blobs import BlobStore
from activities.drivers.trust_files import load_trust
from activities.verdicts import Document, Question, judge
from deploy.lab.releases import LabReleases
from orchestrator.publishing.builder import ReleaseLabels, build_release, index_statement
from policies.model.release import CurrentRelease
from policies.model.trust import Envelope, SignatureKind
from policies.model.verification import Scope, TrustState
from tests.fakes.trees import small_tree

BLOCK = 1 << 20


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Print both figures; `throughput_ratio` is ours to curl's, 1 is equal."""
    parser = argparse.ArgumentParser(prog="bench artifacts")
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=_scratch()) as scratch:
        figures = _throughput(Path(scratch), chosen.mib, chosen.rounds) | _verification(Path(scratch))
    print(f"download + hash + store  {figures['download_mib_s']:8.0f} MiB/s   (best of {chosen.rounds})")
    print(f"curl | openssl dgst      {figures['baseline_mib_s']:8.0f} MiB/s   (best of {chosen.rounds})")
    print(f"ratio                    {figures['throughput_ratio']:8.2f}         (0.85 or more)")
    print(f"two-signature verdict    {figures['verification_ms']:8.2f} ms      (median of 200; 20 or less)")
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1))
    return 0


def _throughput(scratch: Path, mib: int, rounds: int) -> dict[str, float]:
    """Return both rates, measured in turns so that whatever else the machine does meets both."""
    root = scratch / "repository"
    root.mkdir()
    digest = _blob(root / "blob", mib)
    ours, baseline = [], []
    with _served(root) as url:
        for number in range(rounds + 1):
            seconds = (_curl(f"{url}/blob", digest), _download(scratch / f"store-{number}", url, digest, mib))
            if number:  # the first round warms caches and imports
                baseline.append(seconds[0])
                ours.append(seconds[1])
    return {
        "mib": mib,
        "download_mib_s": round(mib / min(ours), 1),
        "baseline_mib_s": round(mib / min(baseline), 1),
        "throughput_ratio": round(min(baseline) / min(ours), 3),
        "throughput_ratio_median": round(statistics.median(baseline) / statistics.median(ours), 3),
    }


def _download(folder: Path, url: str, digest: str, mib: int) -> float:
    store = BlobStore(folder)
    transport = Transport([url], deadline_seconds=120)
    started = time.perf_counter()
    download(transport, f"{url}/blob", digest, mib * BLOCK, store)
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return seconds


def _curl(url: str, digest: str) -> float:
    started = time.perf_counter()
    command = f"curl --silent --fail {url} | openssl dgst -sha256"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    assert done.stdout.split()[-1] == digest.removeprefix("sha256:"), done.stdout
    return seconds


def _verification(scratch: Path) -> dict[str, float]:
    """Return the median time of a whole verdict: release with two bundles, and its signed index."""
    lab = LabReleases(scratch / "lab", scratch / "root", "http://127.0.0.1:1", product="ocserv-gw")
    labels = ReleaseLabels(product="ocserv-gw", version="1.0")
    built = build_release(*small_tree(scratch), labels, scratch / "blobs")
    document = _signed(lab, built.statement, lab.builder, lab.manager)
    current = CurrentRelease(manifest_sha256=built.digest.removeprefix("sha256:"), rollback_index=1)
    now = datetime.now(UTC)
    index = index_statement("ocserv-gw", "stable", [current], serial=1, issued_at=now.replace(microsecond=0))
    trust = load_trust(lab.trust_policy)
    question = Question(built.digest, Scope(product="ocserv-gw", channel="stable"), TrustState(), now)
    signed_index = _signed(lab, index, lab.builder)
    seconds = _repeat(lambda: judge(question, document, signed_index, trust).verdict.admitted, 200)
    return {"verification_ms": round(1000 * statistics.median(seconds), 2)}


def _signed(lab: LabReleases, statement: bytes, *people: tuple[str, str]) -> Document:
    bundles = [lab.signer.sign(statement, *person) for person in people]
    return Document(
        statement, tuple(Envelope(kind=SignatureKind.SIGSTORE, content=bundle) for bundle in bundles)
    )


def _repeat(work: Callable[[], bool], times: int) -> list[float]:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        assert work()
        seconds.append(time.perf_counter() - started)
    return seconds


def _blob(path: Path, mib: int) -> str:
    """Write a file that does not compress; return its digest."""
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(BLOCK))
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


@contextmanager
def _served(root: Path) -> Iterator[str]:
    """Serve the folder from a process of its own, as a repository is."""
    command = [sys.executable, "-m", "deploy.lab.repository", "--root", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


def _scratch() -> Path | None:
    """Return a folder on a real disk: /tmp may be memory."""
    folder = Path("/var/tmp")
    return folder if folder.is_dir() else None
