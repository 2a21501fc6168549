"""The ids that are locks: one change and one bake of a fleet at a time."""

from policies.model.value import Digest
from workflows.children import tell


def change_of(fleet: str) -> str:
    """Return the id under which everything runs that changes the fleet."""
    return f"change/{fleet}"


def beside(change: str) -> str:
    """Return the id of what the change of that id lets in while it only waits."""
    return f"{change}/beside"


def return_of(gateway: str, change: str) -> str:
    """Return the id of the return of a gateway that failed alone in that change, or on its release."""
    return f"restore/{gateway}/{change}"


def bake_of(fleet: str) -> str:
    """Return the id of the watch over the fleet's last promotion."""
    return f"bake/{fleet}"


async def end_bake(fleet: str, change: str, plan: Digest, *, goes_back: bool = False) -> None:
    """End the watch over the last promotion: that change goes back, or begins a watch of its own.

    A bake that has found harm ends only for a change that goes back; any other one has to give way to it.
    """
    await tell(bake_of(fleet), "end", change, plan, goes_back)  # there may be none


async def withdraw_bake(fleet: str, changes: tuple[str, ...]) -> None:
    """End the watch over the promotion of one of these changes, which died in it or before."""
    await tell(bake_of(fleet), "withdrawn", changes)
