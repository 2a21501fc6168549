"""The ids that are locks: one change and one bake of a fleet at a time."""

from contextlib import suppress

from temporalio import workflow
from temporalio.exceptions import FailureError


def change_of(fleet: str) -> str:
    """Return the id under which everything runs that changes the fleet."""
    return f"change/{fleet}"


def bake_of(fleet: str) -> str:
    """Return the id of the watch over the fleet's last promotion."""
    return f"bake/{fleet}"


async def end_bake(fleet: str) -> None:
    """End the watch over the last promotion: from here on the caller answers for the fleet."""
    with suppress(FailureError):  # there may be none
        await workflow.get_external_workflow_handle(bake_of(fleet)).signal("end")
