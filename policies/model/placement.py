"""Where the instances of a gateway live when a cluster runs them: on one of its nodes, beside others."""

from typing import Annotated

from pydantic import Field

from policies.model.value import Digest, Message, Moment, Name, Sentence, Token, Value

NodeName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$", max_length=253)]
"""What a cluster calls a node: a DNS subdomain (RFC 1123)."""


class Placement(Value):
    """On which node of which cluster the instances of a gateway are started and ended."""

    cluster: Name
    """The cluster by its name in the fleet's file; it takes orders on a queue of its own."""
    node: NodeName
    """The node that is this gateway, for as long as it bears the gateway's name."""

    def __str__(self) -> str:
        return f"node {self.node} of cluster {self.cluster}"


class Placed(Message):
    """The instance in one slot of a gateway, as the cluster says that its node runs it.

    `instance` is what the cluster calls exactly this one and never another: the uid of a pod.
    `image` is the digest that the node itself reports running, not what a template asks for.
    """

    gateway: Name
    slot: Name
    instance: Token
    image: Digest
    started_at: Moment | None = None
    changed: bool = False


class NodeLook(Message):
    """What a cluster says of one gateway's node."""

    gateway: Name
    there: bool = True
    """Whether the cluster has a node of that name."""
    ready: bool = True
    """Whether the node reports to its cluster."""
    cordoned: bool = False
    """Whether somebody has told the cluster to start nothing there, as before a drain of the node."""
    slots: tuple[Name, ...] = Field(default=(), max_length=64)
    """Slots that the node is told to run."""
    instances: dict[Name, Token] = Field(default={}, max_length=64)
    """What the cluster calls the instance in each slot that has one; of several the one that is to stay."""
    strange: tuple[Sentence, ...] = Field(default=(), max_length=16)
    """What is there that no order of ours asked for, or is missing although one did; a sentence each."""
    no_way_back: Sentence = ""
    """Why the cluster would not prepare again what the gateway goes back to, where that was asked."""
    boot: Token = ""
    """The kernel's name for the node's present boot."""
