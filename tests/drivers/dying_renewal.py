"""A renewal that is killed at a named line: `python -m tests.drivers.dying_renewal AGENT_FILE LINE`."""

import sys
from pathlib import Path

from activities.drivers.certificate import folder, pending, renewal
from activities.drivers.certificate.folder import CertificateFolder
from activities.drivers.certificate.pending import Pending
from activities.files import load
from orchestrator.processes.agent_file import AgentSettings
from orchestrator.processes.certificate import certificate_renewal
from tests.drivers import dying_agent

BEFORE_IT_COUNTS = {
    "proposed": (CertificateFolder, "propose", "after"),
    "proved": (renewal, "require_proved", "after"),
    "renamed": (Path, "rename", "after"),
}
WHEN_IT_COUNTS = {"pointed": (folder, "point", "after"), "forgotten": (Pending, "forget", "after")}
OF_AN_ORDER = {"key made": (pending, "make_private", "after"), "ordered": (Pending, "keep", "after")}


if __name__ == "__main__":
    file, line = sys.argv[1:]
    if line == "finalized":
        from acme.client import ClientV2

        dying_agent.LINES[line] = (ClientV2, "begin_finalization", "after")
    dying_agent.LINES |= BEFORE_IT_COUNTS | WHEN_IT_COUNTS | OF_AN_ORDER
    settings = load(Path(file), AgentSettings)
    dying_agent.die_at(line)
    certificate_renewal(settings).renew()
