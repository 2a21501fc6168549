"""`python -m deploy.kubernetes`: render deploy/kubernetes/manifests of the chart with its example."""

import sys

from deploy.kubernetes.chart import MANIFESTS, manifests
from orchestrator.exit_code import ExitCode


def main() -> int:
    """Write what has changed, remove what is rendered no longer; return the exit code."""
    rendered = manifests()
    for path in MANIFESTS.glob("*.yaml"):
        if path.name not in rendered:
            path.unlink()
            sys.stdout.write(f"{path.name} is gone\n")
    for name, text in rendered.items():
        path = MANIFESTS / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            sys.stdout.write(f"{name} is new\n")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
