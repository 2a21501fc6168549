"""The workflow runners: what the worker uses, and the strict one of the replay of recorded histories.

A sandbox loads its modules anew for every run of a workflow, thousands of times in a large fleet.
The worker does without: import contracts (pyproject.toml, `deterministic` and `pure`) and banned
names (`ruff.toml` here and in policies) hold workflows and policies to be pure, and the replay of
every recorded history runs in the sandbox, which passes nothing of ours through.
"""

from temporalio.worker import UnsandboxedWorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

RUNNER = UnsandboxedWorkflowRunner()
"""Runs workflows as they are."""

STRICT = SandboxedWorkflowRunner(
    restrictions=SandboxRestrictions.default.with_passthrough_modules(
        "pydantic", "annotated_types", "dateutil", "icalendar", "recurring_ical_events", "tzdata"
    )
)
"""Loads everything of ours inside the sandbox."""
