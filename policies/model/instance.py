"""Instances: daemons running in slots, who gets new sessions, and what a probe found."""

from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network

from pydantic import Field

from policies.model.operation import LAST_EPOCH
from policies.model.value import Count, Digest, Message, Moment, Name, Sentence, Token

MOST_SLOTS = 64
"""Slots that a gateway's answer may name."""

MOST_LINES = 2000
"""Lines of settings that a gateway's answer may have."""

LAST_PID = 2**22
"""The kernel gives no process a larger number (proc_sys_kernel(5), pid_max)."""


NO_ANSWER = "no answer in time"
"""How the reason begins why a gateway is silent whose agent does not answer at all."""


def is_silence(reason: str) -> bool:
    """Return whether the agent does not answer; any other reason is what the agent answers instead."""
    return reason.startswith(NO_ANSWER)


class InstanceState(StrEnum):
    """Where an instance is in its life, read from the host, never remembered."""

    STOPPED = "stopped"
    RUNNING = "running"
    FAILED = "failed"


class Instance(Message):
    """What is in one slot of a gateway now.

    `release` is the manifest digest the slot was given; `executable` is the digest of
    /proc/PID/exe of the process that runs. `sessions` is None when it cannot be known,
    which is never the same as zero.
    """

    slot: Name
    state: InstanceState
    release: Digest | None = None
    executable: Digest | None = None
    pid: int | None = Field(default=None, ge=1, le=LAST_PID)
    started_at: Moment | None = None
    sessions: Count | None = None
    pools: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(), max_length=2, description="what it gives to its users, where its agent tells that"
    )
    placed: Token = Field(
        default="", description="what its cluster calls the one that was proven and is wanted there"
    )


class Steering(Message):
    """The steering table of one gateway as read back from its kernel or balancer.

    `serving` is the permanent slot; `trial` wins over it while its lease lasts, for `share`
    percent of the source addresses. A table that was never primed has neither. `pinned` counts
    the source addresses whose new connections still go to the slot their sessions live on.
    """

    primed: bool = False
    serving: Name | None = None
    trial: Name | None = None
    trial_expires_in: timedelta | None = Field(default=None, ge=timedelta(0), le=timedelta(days=1))
    share: int = Field(
        default=100, ge=0, le=100, description="percent of the source addresses; 100 without a trial"
    )
    pinned: Count = 0
    generation: Sentence = Field(default="", description="who wrote the table last: rollout and epoch")
    changed: bool = False


class GivenCredential(Message):
    """A credential that an agent's file names for its gateway's instances."""

    name: Sentence
    missing: Sentence = Field(default="", description="why nothing can be read there now; empty otherwise")
    elsewhere: bool = Field(default=False, description="another host has it, and is asked at a start only")


class GatewayState(Message):
    """Everything that is true of one gateway at `observed_at`, read back from its host.

    `boot` is the kernel's name for the host's present boot: two states of different boots have a
    reboot between them. It is empty where the agent does not tell it.
    """

    gateway: Name
    instances: tuple[Instance, ...] = Field(max_length=MOST_SLOTS)
    steering: Steering
    epoch: int = Field(ge=0, le=LAST_EPOCH)
    owner: Sentence = Field(
        default="",
        description="which rollout its host obeys since that epoch: `break-glass` where an operator steered "
        "it there, empty where an operator has only reset the fence",
    )
    observed_at: Moment
    boot: Token = ""
    changed: bool = False
    recorded: Count = Field(default=0, description="lines of the host's own record")
    described: tuple[Sentence, ...] = Field(
        default=(), max_length=MOST_SLOTS + 16, description="what the agent's file says of its gateway"
    )
    own_pools: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(), max_length=2, description="what a daemon that was adopted and runs there gives to users"
    )
    credentials: tuple[GivenCredential, ...] | None = Field(
        default=None, max_length=100, description="what the agent's file names; None where it does not tell"
    )
    unserved: tuple[Sentence, ...] = Field(
        default=(), max_length=100, description="credentials that lie on the host otherwise than in what runs"
    )
    unrenewed: Sentence = Field(default="", description="since when its certificate is not renewed, and why")
    reload_answered: Token = Field(default="", description="the last reload of credentials that it answered")
    settings_answered: Token | None = Field(
        default=None,
        description="the last change of settings that it answered, or what took that one back; None where an "
        "older agent does not tell",
    )
    settings: tuple[Sentence, ...] = Field(
        default=(), max_length=MOST_LINES, description="what instances here say in place of their release"
    )

    def instance(self, slot: str) -> Instance:
        """Return what is in that slot: in one that the gateway does not name there is nothing."""
        for found in self.instances:
            if found.slot == slot:
                return found
        return Instance(slot=slot, state=InstanceState.STOPPED)

    def running(self, release: Digest, executable: Digest) -> str | None:
        """Return the slot where exactly this release is alive, the serving one if there are several."""
        wanted = (InstanceState.RUNNING, release, executable)
        alive = [i.slot for i in self.instances if (i.state, i.release, i.executable) == wanted]
        return self.steering.serving if self.steering.serving in alive else next(iter(alive), None)

    @cached_property
    def serving(self) -> Instance | None:
        """The instance that gets new sessions now: the trial one while its lease lasts."""
        slot = self.steering.trial or self.steering.serving
        return self.instance(slot) if slot else None

    @property
    def left_behind(self) -> tuple[str, ...]:
        """The slots whose instances run and get no new sessions: a drain has to empty them."""
        kept = {self.steering.serving, self.steering.trial}
        running = (one.slot for one in self.instances if one.state is InstanceState.RUNNING)
        return tuple(slot for slot in running if slot not in kept)


class Probe(Message):
    """A real login and pings through an instance's own port."""

    passed: bool
    stage: Sentence = Field(description="reached, or failed at: tcp, tls, auth, tunnel or ping")
    reason: Sentence
    connect_seconds: float | None = Field(default=None, ge=0, le=3600, allow_inf_nan=False)
    pings_sent: Count = 0
    pings_lost: Count = 0
