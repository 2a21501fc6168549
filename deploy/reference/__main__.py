"""`./run reference`: write docs/reference from the code."""

import sys
from pathlib import Path

from activities.drivers.daemon.ocserv.settings import ONE, SEVERAL
from deploy.pages import write_new
from deploy.reference import commands, models, settings
from deploy.reference.markdown import page, prose, table
from orchestrator.chat.file import ChatFile
from orchestrator.exit_code import ExitCode
from orchestrator.processes.agent_file import AgentSettings
from orchestrator.processes.cluster_file import ClusterSettings
from policies.model.desired import Upgrade
from policies.model.fleet import Fleet
from policies.model.gates import GatePolicy
from policies.model.notice_rules import NoticeRules
from policies.model.people import People
from policies.model.release import ChannelIndex, ReleaseManifest
from policies.model.site import Site
from policies.model.trust import TrustPolicy
from policies.model.value import Value

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
EXAMPLES = "deploy/examples"

FILES: dict[str, type[Value]] = {
    "fleet": Fleet,
    "upgrade": Upgrade,
    "gates": GatePolicy,
    "trust": TrustPolicy,
    "people": People,
    "site": Site,
    "notices": NoticeRules,
    "agent": AgentSettings,
    "cluster": ClusterSettings,
    "chat": ChatFile,
}
READ = {
    "fleet": """
        Read by the orchestrator, and again whenever it changes: `PENSTOCK_FLEET`, a file or a folder of
        them. `penstock apply` writes it there.
    """,
    "upgrade": """
        Read by `penstock diff` and `penstock apply` in a folder or a checkout; no process reads it by itself.
    """,
    "gates": """
        Read by the orchestrator when a change is planned: `PENSTOCK_GATES`. A series is named as Prometheus
        selects it, with `$cohort` for the gateways that are asked about; rates and sums are the judge's.
    """,
    "trust": """
        Read by the orchestrator (`PENSTOCK_TRUST`) and by every gateway's host (`trust` in its agent's
        file), which both verify every release. It and the files that it names lie in one folder, belong to
        root or to whoever reads them, and nobody else may write them.
    """,
    "people": """
        Read by the API, and again whenever it changes: `PENSTOCK_PEOPLE`. Without it only root is known. The
        README says what each role may do.
    """,
    "site": """
        Read by the command line where runbooks are shown: `PENSTOCK_SITE`. Without it pages are printed as
        they are.
    """,
    "notices": """
        Read by the worker, which tells the sinks, and by the API: `PENSTOCK_NOTICES`, again whenever it
        changes. Without it nobody is told of anything; while it is wrong, what was good before counts.
    """,
    "chat": """
        Read by `penstock chat run` when it starts; the files with secrets are that process's own.
    """,
    "agent": """
        Read on a gateway's host by `penstock agent` and `penstock exporter` when they start. It belongs to
        root or to whoever reads it, and nobody else may write it.
    """,
    "cluster": """
        Read by `penstock cluster`, once for each fleet in each Kubernetes cluster: in a pod there, or on any
        host that reaches its API server. It belongs to root or to whoever reads it, and nobody else may write
        it.
    """,
}
"""Who reads each file, and when."""


STATEMENTS: dict[str, tuple[type[Value], str]] = {
    "The manifest": (
        ReleaseManifest,
        """
        What signers sign, as JSON: `penstock release build` makes it of a folder, a configuration template
        and its options, and nobody writes it by hand. Its digest is the name of the release.
        """,
    ),
    "The channel's index": (
        ChannelIndex,
        """
        Which releases of a channel may be installed, as JSON: `penstock release index` makes it, and the
        group that `index_group` of trust.yaml names signs it.
        """,
    ),
}
"""What is signed: nobody writes it, and whoever signs or audits reads it."""


def _settings() -> str:
    """Return the keys that `settings` may have, as the daemon's driver knows them."""
    several = [(key, f"{what}, or a list of these") for key, (_, what) in SEVERAL.items()]
    one = [(key, what) for key, (_, what) in ONE.items()]
    about = prose("""
        Keys of ocserv.conf (ocserv(8) says what each means) that a reload puts in force: they count for each
        user who logs in afterwards, and live sessions keep what they have. Every other key belongs to a
        release. A daemon that was adopted keeps its own configuration until it has drained.
    """)
    rows = table(("Key", "Value"), ((f"`{key}`", what) for key, what in (*several, *one)))
    return f"## Keys of `settings`\n\n{about}\n\n{rows}"


def pages() -> dict[str, str]:
    """Return every generated page of the reference, by the name of its file."""
    found = {
        f"{name}.md": page(
            f"{name}.yaml",
            prose(READ[name]),
            f"A commented example: `{EXAMPLES}/{name}.yaml`. What is wrong in which line: "
            f"`penstock check {name}.yaml`.",
            models.text_of(model),
            *([_settings()] if name == "fleet" else []),
        )
        for name, model in FILES.items()
    }
    signed = [
        f"## {title}\n\n{prose(about)}\n\n{models.text_of(model, '###', 'The whole')}"
        for title, (model, about) in STATEMENTS.items()
    ]
    found["release.md"] = page("A release", *signed)
    return found | {"settings.md": settings.text(), "commands.md": commands.text()}


def main() -> int:
    """Write what has changed; return the exit code."""
    for name in write_new(FOLDER, pages()):
        sys.stdout.write(f"docs/reference/{name} is new\n")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
