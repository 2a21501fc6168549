"""What each Debian package holds, apart from its files in the folder of its name."""

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
OF_THE_ORCHESTRATOR = (
    "activities/drivers/metrics/prometheus.py",
    "activities/drivers/metrics/replicas.py",
    "activities/drivers/notices",
    "activities/drill_turns.py",
    "activities/calendars.py",
    "activities/normality.py",
    "activities/windows.py",
    "orchestrator/api",
    "orchestrator/charts",
    "orchestrator/chat",
    "orchestrator/cli/audit.py",
    "orchestrator/cli/drill.py",
    "orchestrator/cli/judge.py",
    "orchestrator/cli/keys.py",
    "orchestrator/cli/ledger.py",
    "orchestrator/cli/release.py",
    "orchestrator/engine/development.py",
    "orchestrator/engine/drill_schedules.py",
    "orchestrator/engine/schedules.py",
    "orchestrator/enrolment/desk.py",
    "orchestrator/enrolment/listener.py",
    "orchestrator/monitoring",
    "orchestrator/noticing",
    "orchestrator/page",
    "orchestrator/processes/api.py",
    "orchestrator/processes/composition.py",
    "orchestrator/processes/handshakes.py",
    "orchestrator/processes/key_files.py",
    "orchestrator/processes/last_resort.py",
    "orchestrator/processes/ledger_copy.py",
    "orchestrator/processes/ledger_files.py",
    "orchestrator/processes/listening.py",
    "orchestrator/processes/monitored.py",
    "orchestrator/processes/recurring.py",
    "orchestrator/processes/relay.py",
    "orchestrator/processes/reports.py",
    "orchestrator/processes/serve.py",
    "orchestrator/processes/site_file.py",
    "orchestrator/processes/worker.py",
    "orchestrator/prometheus.py",
    "orchestrator/publishing",
    "orchestrator/refusals.py",
    "orchestrator/relay",
    "orchestrator/reporting",
    "orchestrator/service",
    "orchestrator/store",
    "orchestrator/tracing/exporting.py",
    "policies/chat",
    "policies/drill_turns.py",
    "policies/drills.py",
    "policies/judge/offline",
    "policies/model/drill.py",
    "policies/notices",
    "policies/planning/calendars.py",
    "policies/planning/fitting.py",
    "policies/planning/local_time.py",
    "policies/planning/outline.py",
    "policies/planning/windows.py",
    "policies/recurring.py",
    "policies/reporting",
    "policies/signals.py",
    *(f"workflows/{path.name}" for path in sorted((HERE.parents[1] / "workflows").glob("[a-z]*.py"))),
)
"""Files and folders of the rooms that a gateway's host never loads; a workflow runs on the orchestrator's."""
_KUBERNETES = "activities/drivers/runtime/kubernetes"
OF_A_CLUSTERS_DRIVER = (
    "orchestrator/processes/cluster.py",
    *(
        f"{_KUBERNETES}/{path.name}"
        for path in sorted((HERE.parents[1] / _KUBERNETES).glob("[a-z]*.py"))
        if path.name not in {"answers.py", "words.py"}
    ),
)
"""What speaks to an API server, for which the library is in the agents' image alone; words need none."""
SANDBOX = "workflows/sandbox.py"
"""How every worker is made, the agent's as well."""
GATEWAYS = ("agent", "exporter")
"""What is typed on a gateway's host, and explained there."""


@dataclass(frozen=True)
class Package:
    """One Debian package, and the environment of its own below /usr/lib/NAME."""

    name: str
    requirements: tuple[str, ...]
    """How uv is told which part of the lock it has."""
    left_out: tuple[str, ...] = ()
    """Paths of our own code that it does not have."""
    pages: tuple[str, ...] = ()
    """Words after `penstock` whose manual pages it brings; those of no other package where it is empty."""
    documents: tuple[str, ...] = ()
    """Files and folders of this repository that lie below /usr/share/doc/NAME, to be read and copied."""
    programs: tuple[str, ...] = ()
    """Programs of its dependencies that it needs; all others are left out."""

    @property
    def folder(self) -> Path:
        """Where its control file, scripts and files lie in this repository."""
        return HERE / self.name

    def explains(self, word: str) -> bool:
        """Say whether the manual page of this word is in this package: each is in one."""
        return word in self.pages if self.pages else word not in GATEWAYS

    @property
    def environment(self) -> Path:
        """Where its environment is, from the root of a host."""
        return Path("usr/lib") / self.name


PACKAGES = (
    Package(
        "penstock",
        ("--no-dev", "--extra", "chat"),
        documents=(
            *("README.md", "docs", "runbooks", "deploy/backup", "deploy/examples", "deploy/monitoring"),
            *("deploy/prometheus", "deploy/publishing", "deploy/reloading"),
        ),
        programs=("temporal",),
    ),
    Package(
        "penstock-agent",
        ("--only-group", "agent"),
        left_out=(*(p for p in OF_THE_ORCHESTRATOR if p != SANDBOX), *OF_A_CLUSTERS_DRIVER),
        pages=GATEWAYS,
        documents=(
            "deploy/examples/agent.yaml",
            "deploy/examples/penstock-agent-podman.conf",
            *(
                f"deploy/examples/{path.name}"
                for path in sorted((HERE.parent / "examples").glob("steering-*"))
            ),
            "runbooks/host-refuses.md",
        ),
    ),
)
