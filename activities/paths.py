"""Paths: what a gateway's host measures of the way that users' packets take through it."""

from typing import Protocol

from temporalio import activity

from activities.liveness import answering
from policies.model.path import PathFacts


class HostPath(Protocol):
    """The way through one gateway."""

    async def walk(self) -> PathFacts:
        """Return what is true of it now, tried with a session of the probe's user; nothing is changed."""
        ...


class PathActivities:
    """Looks at one gateway's path; safe to repeat, and done again it only looks again."""

    def __init__(self, path: HostPath) -> None:
        self._path = path

    @activity.defn(name="walk_path")
    async def walk_path(self) -> PathFacts:
        """Return what is true of the way through this gateway."""
        async with answering():
            return await self._path.walk()
