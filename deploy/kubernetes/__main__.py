"""`python -m deploy.kubernetes`: render deploy/kubernetes/manifests of the chart with its example."""

import sys

from deploy.kubernetes.chart import MANIFESTS, manifests
from deploy.pages import write_new
from orchestrator.exit_code import ExitCode


def main() -> int:
    """Write what has changed, remove what is rendered no longer; return the exit code."""
    rendered = manifests()
    for path in MANIFESTS.glob("*.yaml"):
        if path.name not in rendered:
            path.unlink()
            sys.stdout.write(f"{path.name} is gone\n")
    for name in write_new(MANIFESTS, rendered):
        sys.stdout.write(f"{name} is new\n")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
