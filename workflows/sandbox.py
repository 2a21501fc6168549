"""The one workflow runner, shared by the worker, the tests and the replayer.

Nothing of ours is passed through: policies are loaded inside the sandbox, which makes it
the second lock on their purity, beside the import contracts.
"""

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

RUNNER = SandboxedWorkflowRunner(
    restrictions=SandboxRestrictions.default.with_passthrough_modules("pydantic", "annotated_types")
)
