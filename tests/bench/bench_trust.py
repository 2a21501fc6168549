"""How much of the trust code its own tests reach: branch coverage, file by file."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.house.tree import ROOT

CODE = (
    "policies/trust/*",
    "policies/changes.py",
    "policies/model/release.py",
    "policies/model/trust.py",
    "policies/model/verification.py",
    "activities/releases.py",
    "activities/verdicts.py",
    "activities/evidence.py",
    "activities/drivers/trust_files.py",
    "activities/drivers/credentials.py",
    "activities/drivers/source/*",
    "activities/drivers/signature/*",
    "activities/drivers/store/*",
    "orchestrator/engine/failures.py",
    "orchestrator/engine/keys.py",
    "orchestrator/engine/sealing.py",
    "orchestrator/publishing/*",
)
TESTS = (
    "tests/unit/test_trust.py",
    "tests/unit/test_changes.py",
    "tests/activities/test_releases.py",
    "tests/activities/test_releases_attacks.py",
    "tests/activities/test_release_policy.py",
    "tests/activities/test_messages.py",
    "tests/activities/test_snapshots.py",
    "tests/activities/test_host_records.py",
    "tests/service/test_release_commands.py",
    "tests/service/test_sealed_orders.py",
    "tests/relay/test_enrolment.py",
    "tests/drivers/test_host_bounds.py",
    "tests/drivers/test_source_http.py",
    "tests/drivers/test_source_oci.py",
    "tests/drivers/test_signatures.py",
    "tests/drivers/test_signature_mutations.py",
    "tests/drivers/test_store.py",
    "tests/drivers/test_credentials.py",
    "tests/house/test_secrets.py",
)


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Print the table of covered branches; `percent` is that of all files together."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        environment = os.environ | {"COVERAGE_FILE": str(Path(scratch, "coverage"))}
        report = Path(scratch, "report.json")
        coverage = [sys.executable, "-m", "coverage"]
        tests = [*coverage, "run", "--branch", "-m", "pytest", "-q", *TESTS, *arguments]
        ended = subprocess.run(tests, cwd=ROOT, env=environment, check=False).returncode
        included = f"--include={','.join(CODE)}"
        subprocess.run([*coverage, "report", included], cwd=ROOT, env=environment, check=True)
        command = [*coverage, "json", "-q", "-o", str(report), included]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        percent = json.loads(report.read_text())["totals"]["percent_covered"]
    print(f"branch coverage of trust code: {percent:.1f} % (95 or more)")
    if json_path:
        json_path.write_text(json.dumps({"percent": round(percent, 1), "tests_exit": ended}, indent=1))
    return ended
