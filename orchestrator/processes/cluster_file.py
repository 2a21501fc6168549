"""A cluster's own file: what the driver of one fleet's instances there is told, and nowhere else."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from activities.drivers.runtime.kubernetes.words import OURS
from orchestrator.processes.enrolled_file import EnrolledSettings
from policies.model.fleet import GatewayRef
from policies.model.value import Duration, Name

ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$", max_length=63)]
"""What a cluster calls a namespace, a container or a DaemonSet here (RFC 1123)."""

Repository = Annotated[str, Field(pattern=r"^[a-z0-9.-]+(?::[0-9]{1,5})?(?:/[a-z0-9._-]+)+$", max_length=255)]
"""A registry's host and a name in it, without a tag or a digest: releases say the digest."""


SHORTEST_WAIT, LONGEST_WAIT = timedelta(seconds=1), timedelta(seconds=100)
"""A wait says what it waited for before the engine ends a try of its step, which is after two minutes."""


class ClusterSettings(EnrolledSettings):
    """The driver's own file: its cluster, its fleet there, whom it trusts, and how both are reached."""

    name: Name
    """The cluster, as `placement.cluster` of its gateways says; the driver is enrolled by this name."""
    fleet: Name
    """Whose gateways its nodes are."""
    namespace: ObjectName
    """Where the fleet's DaemonSets are."""
    kubeconfig: Path | None = Field(
        None, description="how the API server is reached, chmod 600; left out where the driver is a pod there"
    )
    slots: dict[Name, ObjectName] = Field(
        min_length=2, description="each slot of a gateway, with the DaemonSet of its instances"
    )
    container: ObjectName = "gateway"
    """The container of the daemon in each pod."""
    repository: Repository
    """Where nodes pull the images of releases from."""
    node_labels: dict[str, str] | None = Field(
        None, description="what a node bears to be one of the fleet's; left out, penstock.dev/FLEET: true"
    )
    up_within: Duration = Field(
        timedelta(seconds=90),
        ge=SHORTEST_WAIT,
        le=LONGEST_WAIT,
        description="how long an instance may take to be ready before that is told; 1s to 100s",
    )
    gone_within: Duration = Field(
        timedelta(seconds=60),
        ge=SHORTEST_WAIT,
        le=LONGEST_WAIT,
        description="how long the end of one is waited for before that is told; 1s to 100s",
    )
    root: Path = Field(description="folder of the driver's own record, and of what it has verified")
    product: Name
    """What it runs; it prepares no other product."""
    channel: Name
    """Whose releases it prepares; those of no other channel."""
    trust: Path = Field(description="trust.yaml of this host; the orchestrator's word is not enough")

    @property
    def task_queue(self) -> str:
        """The queue on which its orders come."""
        return GatewayRef(name=self.name, fleet=self.fleet).task_queue

    @property
    def bears(self) -> dict[str, str]:
        """Labels that make a node one of the fleet's."""
        return {f"{OURS}/{self.fleet}": "true"} if self.node_labels is None else self.node_labels

    @model_validator(mode="after")
    def _slots_are_apart(self) -> Self:
        if len(set(self.slots.values())) < len(self.slots):
            raise ValueError("two slots have the same DaemonSet; each needs one of its own")
        return self
