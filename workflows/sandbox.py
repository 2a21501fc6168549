"""The workflow runners: what the worker uses, and the stricter one of the replay of recorded histories.

A sandbox loads its modules anew for every run of a workflow. The model and decisions are most of
what workflows import and cost four fifths of that time (0.15 to 0.4 s of a processor for a run),
so the worker passes them through, loaded once a process: the import contracts hold them to be
pure. The replay of every recorded history passes nothing of ours through; there the sandbox is
the second lock on their purity.
"""

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

_LIBRARIES = SandboxRestrictions.default.with_passthrough_modules("pydantic", "annotated_types")

STRICT = SandboxedWorkflowRunner(restrictions=_LIBRARIES)
"""Loads everything of ours inside the sandbox."""

RUNNER = SandboxedWorkflowRunner(restrictions=_LIBRARIES.with_passthrough_modules("policies", "activities"))
"""Loads the workflows inside the sandbox, and what they import once."""
