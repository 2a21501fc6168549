"""The fleet: gateways, the groups that can take each other's users, and how far a change may reach."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import pairwise
from math import ceil
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from policies.model.chat import FleetChat
from policies.model.drain import DrainLimits
from policies.model.errors import Unknown
from policies.model.placement import Placement
from policies.model.recurring import RecurringUpgrade
from policies.model.release_tests import Asked, Method, ReleaseTests
from policies.model.settings import Setting, Settings
from policies.model.spare import SpareDrills
from policies.model.value import Duration, Name, Value, twice
from policies.model.windows import MOST_FREEZES, MOST_WINDOWS, Freeze, OnWindowClose, PatchWindow
from policies.model.zones import SITE, ZoneName

Step = Annotated[str, Field(pattern=r"^[1-9][0-9]*%?$", coerce_numbers_to_str=True)]
"""How many gateways have changed when a wave ends: a count ("1") or a share of those that can ("25%")."""

HeldOut = Annotated[str, Field(pattern=r"^(?:0|[1-9][0-9]*|[1-9][0-9]?%)$", coerce_numbers_to_str=True)]
"""How many gateways of a group change after all others: a count ("1") or a share of the group ("5%")."""

Failing = Annotated[str, Field(pattern=r"^[0-9]{1,2}(?:\.[0-9]{1,2})?%$")]
"""A share of gateways, below all of them: "5%", "0.5%"."""

Percent = Annotated[int, Field(ge=1, le=100)]

GATEWAY_QUEUE = "gateway/"
"""What the names of all gateways' queues begin with."""

SHORTEST_LEASE, LONGEST_LEASE = timedelta(seconds=5), timedelta(minutes=15)
"""A lease outlasts one slow renewal, and never leaves users on an unwatched release for longer than this."""

SHORTEST_DEADLINE = timedelta(minutes=1)
"""A drain deadline below this ends nearly every session by force."""


NAMED = 10
"""Gateways that a sentence names."""

SMALLEST_POOL = 30
"""Length of the prefix beyond which a pool has no address beside the daemon's own."""


USERS_AT = r"^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?$"
"""A name, an IPv4 address, or an IPv6 address in brackets; then perhaps a port."""


NAMESPACE = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
"""A name of a network namespace, which is a file's name, too."""


class Slot(Value):
    """A place on a gateway's host where one instance can run, with everything that must not be shared."""

    name: Name
    """How people and records call it."""
    port: int = Field(ge=1, le=65535, description="TCP and UDP port of the instance in this slot")
    address: IPv4Address | None = Field(
        default=None,
        exclude_if=lambda address: address is None,  # plans made before there were any keep their digests
        description="of an instance in a network of its own, whose daemon has fixed ports; the other address "
        "of its /31 is the host's",
    )
    device: str = Field(
        max_length=8,
        description="prefix of the instance's tun devices; with an `address`, the host's end of its cable",
    )
    pool4: IPv4Network
    """Addresses of its users; no other slot has any of them. It may grow at its end under live sessions."""
    pool6: IPv6Network | None = None
    """The same for IPv6; without one, lines of the template that need it are left out."""

    users_at: str | None = Field(
        default=None,
        pattern=USERS_AT,
        max_length=260,
        exclude_if=lambda where: where is None,  # plans made before there was one keep their digests
        description="address or name, with a port other than 443, at which users reach this slot; with "
        "steering redirect, where it is not the name they dialled and the slot's port, or what a hook is "
        "told",
    )

    @property
    def pools(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Its pools, the one of IPv4 first."""
        return (self.pool4,) if self.pool6 is None else (self.pool4, self.pool6)

    @property
    def cable(self) -> IPv4Network | None:
        """The two addresses of the cable between the host and the instance's own network (RFC 3021)."""
        return None if self.address is None else IPv4Network(f"{self.address}/31", strict=False)

    @property
    def host_end(self) -> IPv4Address | None:
        """The other end of that cable."""
        return None if self.cable is None else next(one for one in self.cable if one != self.address)

    @field_validator("pool4")
    @classmethod
    def _pool_has_users(cls, pool: IPv4Network) -> IPv4Network:
        if pool.prefixlen > SMALLEST_POOL:
            raise ValueError(f"{pool} has no addresses for users; write a network like 10.0.1.0/24")
        return pool


class GatewayRef(Value):
    """A gateway as plans and workflows know it: who it is, with whom it shares what, how much it carries."""

    name: Name
    """How people, plans and records call it."""
    fleet: Name | None = Field(default=None, description="whose it is; a fleet's file need not say so")
    group: Name = "main"
    """Who can take each other's users: these are planned and compared together."""
    domain: Name = "main"
    """Who could fail together, such as a rack: `limits.switching_per_domain` switch at once."""
    capacity: int = Field(default=1000, ge=1, description="sessions the host can carry")
    placement: Placement | None = Field(
        default=None,
        exclude_if=lambda placement: placement is None,  # plans made before there were any keep their digests
        description="where a cluster starts and ends its instances; without it its own host does",
    )

    @property
    def task_queue(self) -> str:
        """The queue on which this gateway's agent takes its orders; names have no slash in them."""
        return f"{GATEWAY_QUEUE}{self.fleet or ''}/{self.name}"

    @property
    def cluster(self) -> "GatewayRef | None":
        """Whoever starts and ends its instances, under its own name; None where its own host does."""
        return GatewayRef(name=self.placement.cluster, fleet=self.fleet) if self.placement else None

    def needs(self, sessions: int | None) -> int:
        """Return what its group has to carry for it: its sessions, or all it can when they are uncounted."""
        return self.capacity if sessions is None else sessions


SteeringKind = Literal["nftables", "redirect", "haproxy", "hook"]
"""What may say who gets a gateway's new sessions."""
HookSkill = Literal["share", "lease"]
"""What a program that steers may be able to do: send a share of new users, end a trial by itself."""
ANY_HOOK: tuple[HookSkill, ...] = ("share",)

CARRIED = frozenset(
    {
        ("ocserv", "host"),
        ("ocserv", "podman"),
        ("ocserv", "kubernetes"),
        ("openvpn", "host"),
        ("strongswan", "host"),
    }
)
"""Which daemon is carried by which runtime: the pairs that keep the contract of gateways."""
UNCARRIED = {
    "podman": "it was tried in no container",
    "kubernetes": "its agent may make no network there to test a config in",
}
"""Why a runtime does not carry the other daemons."""

Key = Literal["settings", "tests.load", "tests.mirror", "tests.names", "tests.profiles"]
UNMADE: Mapping[str, frozenset[Key]] = {
    "ocserv": frozenset({"tests.profiles"}),
    "openvpn": frozenset({"settings", "tests.load", "tests.mirror", "tests.names"}),
    "strongswan": frozenset({"settings", "tests.load", "tests.mirror", "tests.names", "tests.profiles"}),
}
"""Keys of a fleet's file that a daemon's driver has nothing for."""
UNMADE_TESTS: Mapping[str, tuple[Asked, ...]] = {
    "strongswan": (
        Asked.GARBAGE,
        Asked.PLAIN_HTTP,
        Asked.NULL_CIPHER,
        Asked.WRONG_PASSWORD,
        Asked.FULL_SIZE_LOST,
        Asked.CLEARTEXT,
        Asked.ROUTES,
    ),
}
"""Tests of every fleet that a daemon's driver does not make: the fleet skips them, or it waits for ever."""

OWN_NETWORKS = frozenset({"strongswan"})
"""The daemons that have fixed ports: each of their instances needs a network of its own."""
IKE_PORT = 500


class Gateway(GatewayRef):
    """One service address on one host, with two or more slots.

    `runtime` says what an instance is there, and so what else belongs to the gateway: on a host, slots.
    """

    runtime: Literal["host", "podman", "kubernetes"] = "host"
    """What an instance is there: a process in a slot of the host, a container of podman in one, or a pod of a
    colour on a node."""
    daemon: Name = Field(
        default="ocserv",
        exclude_if=lambda kind: kind == "ocserv",  # plans made before there was another keep their digests
        description="what it runs; releases of another daemon are refused there",
        json_schema_extra={"enum": [*sorted({daemon for daemon, _ in CARRIED})]},
    )
    steering: SteeringKind = Field(
        default="nftables",
        exclude_if=lambda kind: kind == "nftables",  # plans made before there was another keep their digests
        description="what says who gets new sessions: the kernel's nftables, a HAProxy on the host that "
        "redirects users to their instance, or one that carries their connections, or a program of yours",
    )
    hook_can: tuple[HookSkill, ...] = Field(
        default=ANY_HOOK,
        exclude_if=lambda skills: skills == ANY_HOOK,  # plans made before there was one keep their digests
        description="what the program of steering hook can do: send a `share` of new users to an instance, "
        "end a trial with its `lease` by itself",
    )
    addresses: tuple[IPv4Address | IPv6Address, ...] = Field(min_length=1)
    """What users dial, IPv4 and IPv6; no other gateway has one of them."""
    port: int = Field(default=443, ge=1, le=65535, description="the port users dial")
    management: IPv4Address | IPv6Address | None = Field(
        default=None,
        exclude_if=lambda address: address is None,  # plans made before there was one keep their digests
        description="its address off the users' network, where the exporter answers",
    )
    inside: Annotated[str, Field(pattern=NAMESPACE, max_length=64)] | None = Field(
        default=None,
        exclude_if=lambda name: name is None,  # plans made before there was one keep their digests
        description="network namespace of the host (ip-netns(8)) that leads to what users come for, where "
        "instances have networks of their own; without it the host itself does",
    )
    metrics_port: int = Field(default=9500, ge=1, le=65535)
    """Where the exporter answers Prometheus."""
    slots: tuple[Slot, ...] = Field(min_length=2)
    """Where instances run, two or more: the new one starts beside the old one."""
    settings: Settings = Field(
        default={},
        exclude_if=lambda settings: not settings,
        description="of this gateway alone, key by key in place of the fleet's; no use in an agent's file",
    )
    tz: ZoneName | None = Field(
        default=None,
        exclude_if=lambda zone: zone is None,
        description="the time zone of its site, where that is not the fleet's; no use in an agent's file",
    )

    @property
    def every_address(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """The addresses users dial, and the one for management if there is one."""
        return self.addresses if self.management is None else (*self.addresses, self.management)

    @property
    def metrics_target(self) -> str:
        """Host and port at which Prometheus scrapes this gateway: its instance label.

        The management address; without one an address of the users' network, IPv4 if there is one.
        """
        first = next((a for a in self.addresses if isinstance(a, IPv4Address)), self.addresses[0])
        address = self.management or first
        host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        return f"{host}:{self.metrics_port}"

    @model_validator(mode="after")
    def _is_carried(self) -> "Gateway":
        if self.daemon not in (known := sorted({daemon for daemon, _ in CARRIED})):
            raise ValueError(
                f"gateway {self.name}: no daemon is called {self.daemon}; write one of {', '.join(known)}"
            )
        if (self.daemon, self.runtime) not in CARRIED:
            raise ValueError(
                f"gateway {self.name}: {self.daemon} is not carried by runtime {self.runtime} yet: "
                f"{UNCARRIED[self.runtime]}; let it run on a host"
            )
        return self

    @property
    def address4(self) -> IPv4Address | None:
        """The first of its IPv4 addresses that users dial."""
        return next((one for one in self.addresses if isinstance(one, IPv4Address)), None)

    @property
    def has_own_networks(self) -> bool:
        """Whether each instance has a network of its own, and its daemon's own ports there."""
        return self.daemon in OWN_NETWORKS

    @model_validator(mode="after")
    def _instances_have_networks(self) -> "Gateway":
        addressed = next((slot.name for slot in self.slots if slot.address is not None), None)
        bare = next((slot.name for slot in self.slots if slot.address is None), None)
        if not self.has_own_networks:
            if self.inside is not None:
                raise ValueError(
                    f"gateway {self.name}: instances of {self.daemon} have no network of their own that "
                    f"could lead inside to {self.inside}; leave inside out"
                )
            if addressed is not None:
                raise ValueError(
                    f"gateway {self.name}: slot {addressed} has an address, and {self.daemon} has a port of "
                    "the host; leave the address out"
                )
            return self
        if bare is not None:
            raise ValueError(
                f"gateway {self.name}: {self.daemon} has fixed ports, so each instance has a network of its "
                f"own; give slot {bare} an address, such as 10.255.0.1"
            )
        if {self.port, *(slot.port for slot in self.slots)} != {IKE_PORT}:
            raise ValueError(
                f"gateway {self.name}: users of {self.daemon} dial {IKE_PORT}, and 4500 then; write "
                f"port: {IKE_PORT} for the gateway and each slot"
            )
        if self.address4 is None or any(slot.pool6 is not None for slot in self.slots):
            raise ValueError(
                f"gateway {self.name}: instances of {self.daemon} are reached by IPv4 only yet; give it an "
                "IPv4 address, and leave pool6 out"
            )
        return self

    @model_validator(mode="after")
    def _cables_are_their_own(self) -> "Gateway":
        cables = [slot.cable for slot in self.slots if slot.cable is not None]
        if shared := twice(cables):
            raise ValueError(f"gateway {self.name}: two slots have an address of {shared}; one is the host's")
        users = [IPv4Network(one) for one in self.every_address if isinstance(one, IPv4Address)]
        for cable in cables:
            other = next(
                (one for one in (*users, *(s.pool4 for s in self.slots)) if one.overlaps(cable)), None
            )
            if other is not None:
                raise ValueError(f"gateway {self.name}: {cable} of a slot's address is a part of {other}")
        return self

    @model_validator(mode="after")
    def _is_steered(self) -> "Gateway":
        if self.steering != "nftables" and self.runtime != "host":
            raise ValueError(
                f"gateway {self.name}: {self.steering} does not steer to instances of runtime {self.runtime} "
                "yet: it was tried with processes of a host alone; write steering: nftables"
            )
        if self.steering != "nftables" and self.daemon != "ocserv":
            raise ValueError(
                f"gateway {self.name}: {self.steering} steers ocserv only yet: {self.daemon} was not tried "
                "with it; write steering: nftables"
            )
        if self.hook_can != ANY_HOOK and self.steering != "hook":
            raise ValueError(
                f"gateway {self.name}: hook_can is of a program that steers, and {self.steering} does; "
                "write steering: hook, or leave hook_can out"
            )
        elsewhere = next((slot.name for slot in self.slots if slot.users_at is not None), None)
        if elsewhere is not None and self.steering not in ("redirect", "hook"):
            raise ValueError(
                f"gateway {self.name}: users are sent to slot {elsewhere} by a redirect or a hook only; "
                "write steering: redirect or hook, or leave users_at out"
            )
        return self

    @model_validator(mode="after")
    def _is_placed_or_a_host(self) -> "Gateway":
        if self.runtime == "kubernetes" and self.placement is None:
            raise ValueError(
                f"gateway {self.name}: nothing says which node it is; write placement with cluster and node"
            )
        if self.runtime != "kubernetes" and self.placement is not None:
            raise ValueError(
                f"gateway {self.name} has a placement, and runtime {self.runtime} has none; write "
                "runtime: kubernetes, or leave placement out"
            )
        return self

    @model_validator(mode="after")
    def _slots_share_nothing(self) -> "Gateway":
        for what in ("name", "port", "device"):
            shared_by = [getattr(slot, what) for slot in self.slots if what != "port" or slot.address is None]
            if twice(shared_by) is not None:
                raise ValueError(f"gateway {self.name}: two slots have the same {what}")
        if self.management in self.addresses:
            raise ValueError(
                f"gateway {self.name}: {self.management} is the users' and cannot be for management; "
                "give it an address of another network, or leave management out"
            )
        if self.port in [slot.port for slot in self.slots if slot.address is None]:
            raise ValueError(f"gateway {self.name}: port {self.port} is the users' and cannot be a slot's")
        if shared := _shared_pool([self]):
            raise ValueError(f"{shared}: give each slot a pool of its own")
        return self


class Automation(StrEnum):
    """What penstock does by itself; a hard failure of an instance goes back by itself in all three."""

    OBSERVE = "observe"
    """Verdicts are shown and nothing else: waves go on when their time is over, also without metrics."""
    ASK = "ask"
    """Harm holds and proposes the way back; a person says yes."""
    ACT = "act"
    """Harm goes back by itself, health goes on by itself.

    Once the wave has passed, operators decide about harm that is only measured.
    """


class RemovedUsers(StrEnum):
    """What becomes of live sessions of users whom a reload of credentials has taken out."""

    KEEP = "keep"
    """They go on until they end; nobody of that name logs in again."""
    END = "end"
    """Their own gateway ends them, once nobody of that name can log in."""


class Limits(Value):
    """How much may change at once, and how long things may take.

    `shares` are the percentages of source addresses that get to the new instance in turn, where a
    gateway is compared with itself: the verdict falls at the last one below 100, and 100 is the switch.
    """

    steps: tuple[Step, ...] = Field(default=("1", "25%", "100%"), min_length=1)
    """How many gateways have changed when each wave ends: counts, then shares; the last one is `100%`."""
    holdout: HeldOut = Field(
        default="1", description="gateways of each group that change last, to compare with; a third at most"
    )
    shares: tuple[Percent, ...] = Field(default=(10, 50, 100), min_length=1)
    """Of blue-green: percentages of addresses sent to the new instance in turn; 100 is the switch."""
    canary_share: Percent = Field(
        default=100, description="percent of the first gateway's addresses that try the release first"
    )
    failures: Failing = Field(
        default="5%", description="of a wave, that may fail by themselves; of a canary none may"
    )
    automation: Automation = Automation.ACT
    """Without a person: `act` on harm and health, `ask` before going back, or `observe` only."""
    switching: int = Field(default=2, ge=1, description="gateways of the fleet that switch at the same time")
    draining: int = Field(
        default=50, ge=1, description="gateways of one wave at most: all of these drain together"
    )
    switching_per_domain: int = Field(default=1, ge=1)
    """Gateways of one domain that switch at the same time."""
    headroom: float = Field(default=1.2, ge=1.0, allow_inf_nan=False)
    """How many times its sessions a group must be able to carry without those that change."""
    drain_deadline: Duration = timedelta(hours=8)
    """How long old sessions may last, one minute at least; what is left is ended as `drain` says."""
    drain: DrainLimits = DrainLimits()
    """How what is left at the deadline is ended."""
    removed_users: RemovedUsers = Field(
        default=RemovedUsers.KEEP,
        exclude_if=lambda what: what is RemovedUsers.KEEP,
        description="what a reload of credentials does with sessions of users it takes out: `keep` or `end`",
    )
    lease: Duration = Field(
        default=timedelta(minutes=2),
        description="how long an unconfirmed release keeps new sessions; longer in large waves",
    )
    kept: Duration = Field(default=timedelta(hours=24), description="how long a rollback stays one step away")
    snapshots_kept: Duration = Field(default=timedelta(days=30), description="how long evidence is kept")

    @field_validator("steps")
    @classmethod
    def _steps_grow_to_all(cls, steps: tuple[str, ...]) -> tuple[str, ...]:
        sizes = [(step.endswith("%"), int(step.removesuffix("%"))) for step in steps]
        if any(share and size > 100 for share, size in sizes):  # noqa: PLR2004 - per cent
            raise ValueError(f"{_spoken(steps)}: no share is above 100%; write 100% for everybody")
        if any(later <= earlier for earlier, later in pairwise(sizes)):
            raise ValueError(
                f"{_spoken(steps)} must grow, counts before shares; write them like 1, 25%, 100%"
            )
        if steps[-1] != "100%":
            raise ValueError(f"{_spoken(steps)} stops before everybody has changed; end with 100%")
        return steps

    @field_validator("shares")
    @classmethod
    def _shares_grow_to_all(cls, shares: tuple[int, ...]) -> tuple[int, ...]:
        if shares[-1] != 100 or any(later <= earlier for earlier, later in pairwise(shares)):  # noqa: PLR2004
            raise ValueError(f"{_spoken(shares)} must grow and end with 100; write them like 10, 50, 100")
        return shares

    @field_validator("lease")
    @classmethod
    def _lease_is_sound(cls, lease: timedelta) -> timedelta:
        if not SHORTEST_LEASE <= lease <= LONGEST_LEASE:
            raise ValueError(
                f"{lease} is no lease; write one from 5s to 15m, longer than a restart takes: 120s"
            )
        return lease

    @field_validator("drain_deadline")
    @classmethod
    def _deadline_is_sound(cls, deadline: timedelta) -> timedelta:
        if deadline < SHORTEST_DEADLINE:
            raise ValueError(f"{deadline} would end sessions by force; write 1m or more, with a unit: 8h")
        return deadline

    @model_validator(mode="after")
    def _drain_fits(self) -> "Limits":
        drain = self.drain
        if drain.warning > self.drain_deadline:
            raise ValueError(
                f"drain.warning ({drain.warning}) is longer than drain_deadline ({self.drain_deadline}); "
                "shorten drain.warning or lengthen drain_deadline"
            )
        if drain.ended_per_minute > drain.logins_per_minute:
            raise ValueError(
                f"one gateway alone may end {drain.ended_per_minute} sessions a minute (drain.batch every "
                f"drain.pause), more than drain.logins_per_minute ({drain.logins_per_minute}); "
                "lengthen drain.pause or raise drain.logins_per_minute"
            )
        return self


class AtDeadline(StrEnum):
    """What happens by itself when nobody answers in time."""

    KNOWN_GOOD = "known_good"
    NOTHING = "nothing"


class RollbackRules(Value):
    """Which rollbacks that a person asks for wait for a second person; the automatic way back never does."""

    confirm_other_release: bool = Field(
        default=True, description="those to another release than known-good wait"
    )
    confirm_whole_group: bool = Field(
        default=False, description="those of a whole group wait, also to known-good"
    )
    answer_within: Duration = timedelta(minutes=15)
    """How long the second person has."""
    at_deadline: AtDeadline = AtDeadline.KNOWN_GOOD
    """What happens without an answer: its gateways go back to `known_good`, or nothing happens."""


class Fleet(Value):
    """All gateways of one product that are upgraded together: the content of fleet.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    api_version: Literal["penstock/v1"] = Field(default="penstock/v1", alias="apiVersion")
    """The form of this file."""
    name: Name
    """How people and commands call it; one file for each fleet."""
    product: Name
    """What its gateways run; releases of this product fit."""
    channel: Name = "stable"
    """Whose releases it may get, with `product`: the rule of trust.yaml and the index."""
    nat: bool = Field(default=False, description="gateways translate addresses, so pools may be the same")
    gateways: tuple[Gateway, ...] = Field(min_length=1)
    """Every gateway, in any order."""
    limits: Limits = Limits()
    """How much may change at once, and how long things may take."""
    rollback: RollbackRules = RollbackRules()
    """Which rollbacks wait for a second person."""
    tests: ReleaseTests | None = Field(
        default=None,
        exclude_if=lambda tests: tests is None,  # plans made before there were any keep their digests
        description="what a new instance has to pass before it gets a user; without it only the probe",
    )
    approvals: int = Field(
        default=0,
        ge=0,
        le=9,
        description="people who must approve each upgrade and change of settings, beside who starts it",
    )
    reload_approvals: int = Field(
        default=0,
        ge=0,
        le=9,
        exclude_if=lambda count: not count,
        description="people who must approve each reload of credentials, beside who asks for it",
    )
    settings: Settings = Field(
        default={},
        exclude_if=lambda settings: not settings,
        description="what daemons say in place of their release's template; the keys are at the end of this "
        "page, and `penstock config start` puts them on gateways",
    )
    chat: FleetChat | None = Field(
        default=None,
        exclude_if=lambda chat: chat is None,
        description="rooms of a chat where the fleet is spoken of, and what may be ordered there",
    )
    tz: ZoneName | None = Field(
        default=None,
        exclude_if=lambda zone: zone is None,
        description="the time zone of its gateways' site, which `tz: site` of windows and freezes means",
    )
    windows: tuple[PatchWindow, ...] = Field(
        default=(),
        max_length=MOST_WINDOWS,
        exclude_if=lambda windows: not windows,
        description="when waves may start; without any, always",
    )
    freezes: tuple[Freeze, ...] = Field(
        default=(),
        max_length=MOST_FREEZES,
        exclude_if=lambda freezes: not freezes,
        description="when no wave may start, whatever windows say; rollbacks always may",
    )
    on_window_close: OnWindowClose = Field(
        default=OnWindowClose.FINISH_WAVE,
        exclude_if=lambda what: what is OnWindowClose.FINISH_WAVE,
        description="what becomes of a wave that is under way then: `finish_wave`, `hold` or `rollback`",
    )
    min_tail: Duration = Field(
        default=timedelta(minutes=15),
        ge=timedelta(0),
        le=timedelta(days=1),
        exclude_if=lambda tail: tail == timedelta(minutes=15),
        description="how long before the closing a wave has to be over, its way back included",
    )
    jitter: Duration = Field(
        default=timedelta(0),
        ge=timedelta(0),
        le=timedelta(days=1),
        exclude_if=lambda jitter: not jitter,
        description="how much later than its window a fleet begins at most, so that fleets begin apart",
    )

    drills: SpareDrills | None = Field(
        default=None,
        exclude_if=lambda drills: drills is None,
        description="spare gateways on which drills are rehearsed by the clock, inside a patch window",
    )

    recurring: RecurringUpgrade | None = Field(
        default=None,
        exclude_if=lambda recurring: recurring is None,
        description="the newest release of the channel is started by itself, once in each opening",
    )

    @model_validator(mode="before")
    @classmethod
    def _gateways_know_whose_they_are(cls, said: object) -> object:
        """Give every gateway the fleet's name, by which its queue is told from those of other fleets."""
        if not isinstance(said, dict) or not isinstance(said.get("gateways"), list | tuple):
            return said
        return said | {"gateways": [_of_fleet(one, said.get("name")) for one in said["gateways"]]}

    @model_validator(mode="after")
    def _gateways_share_nothing(self) -> "Fleet":
        if other := next((one for one in self.gateways if one.fleet != self.name), None):
            raise ValueError(f"gateway {other.name} says that it is of {other.fleet}; this is {self.name}")
        if name := twice(gateway.name for gateway in self.gateways):
            raise ValueError(f"gateway {name} is listed twice")
        if address := twice(address for gateway in self.gateways for address in gateway.every_address):
            holders = [gateway.name for gateway in self.gateways if address in gateway.every_address]
            raise ValueError(
                f"address {address} is given twice ({_spoken(holders)}); each gateway has its own"
            )
        load = self.tests.load if self.tests else None
        if load is not None and load.gateway not in self._by_name:
            raise ValueError(
                f"tests.load.gateway is {load.gateway}, which is no gateway of this fleet; name one of "
                f"{_spoken(sorted(self._by_name)[:NAMED])}"
            )
        self._runs_its_product()
        self._asks_nothing_of_daemons_that_they_have_not()
        if not self.nat and (shared := _shared_pool(self.gateways)):
            raise ValueError(
                f"{shared}: give each gateway pools of its own, "
                "or say `nat: true` if every gateway translates its users' addresses"
            )
        return self

    def _runs_its_product(self) -> None:
        """Refuse another daemon where the product is called as one: its releases would fit nowhere."""
        if self.product not in {daemon for daemon, _ in CARRIED}:
            return
        if other := next((one for one in self.gateways if one.daemon != self.product), None):
            raise ValueError(
                f"product is {self.product} and gateway {other.name} runs {other.daemon}; write daemon: "
                f"{self.product}"
            )

    def _asks_nothing_of_daemons_that_they_have_not(self) -> None:
        tests = self.tests or ReleaseTests()
        asked: dict[Key, object] = {
            "tests.load": tests.load,
            "tests.mirror": tests.mirror,
            "tests.names": tests.names,
            "tests.profiles": tests.profiles,
        }
        for gateway in self.gateways:
            asked["settings"] = {**self.settings, **gateway.settings}
            if unmade := sorted(key for key in UNMADE.get(gateway.daemon, ()) if asked[key]):
                raise ValueError(
                    f"gateway {gateway.name} runs {gateway.daemon}, of which there are no "
                    f"{_spoken(unmade)}; leave them out"
                )
            made = self.tests.asked(Method.TRIED) if self.tests else ()
            if lacking := [one for one in UNMADE_TESTS.get(gateway.daemon, ()) if one in made]:
                skipped = list(dict.fromkeys([*tests.skip, *lacking]))
                raise ValueError(
                    f"gateway {gateway.name}: {gateway.daemon} has no test {_spoken(lacking)}; write "
                    f"tests.skip: [{_spoken(skipped)}]"
                )

    @model_validator(mode="after")
    def _nodes_are_gateways(self) -> "Fleet":
        places = [one.placement for one in self.gateways if one.placement is not None]
        if place := twice((one.cluster, one.node) for one in places):
            raise ValueError(
                f"node {place[1]} of cluster {place[0]} is two gateways; one node is one gateway"
            )
        if name := next((one.cluster for one in places if one.cluster in self._by_name), None):
            raise ValueError(
                f"{name} is a gateway and a cluster, which both take orders under it; give one another name"
            )
        return self

    @model_validator(mode="after")
    def _windows_are_somewhere(self) -> "Fleet":
        said = [(one.name, one.tz) for one in self.windows] + [(one.name, one.tz) for one in self.freezes]
        if name := twice(name for name, _ in said):
            raise ValueError(f"two windows or freezes are called {name}; give each a name of its own")
        of_sites = next((name for name, tz in said if tz == SITE), None)
        lost = next((one.name for one in self.gateways if one.tz is None), None) if self.tz is None else None
        if of_sites is not None and lost is not None:
            raise ValueError(
                f"{of_sites} is in the zone of each site, and nothing says which that is of {lost}; "
                "write tz: Europe/Berlin for the fleet or the gateway"
            )
        if short := next((one for one in self.windows if one.duration <= self.jitter), None):
            raise ValueError(f"jitter is {self.jitter}, and {short.name} is over then; write a shorter one")
        longest = max(self.windows, key=lambda one: one.duration, default=None)
        if longest is not None and longest.duration <= self.jitter + self.min_tail:
            raise ValueError(
                f"{longest.name} is open for {longest.duration}, jitter may take {self.jitter} of that, "
                f"and a wave has to be over {self.min_tail} before it closes: none could ever start; write a "
                "longer duration or a shorter min_tail"
            )
        return self

    @model_validator(mode="after")
    def _recurring_has_its_windows(self) -> "Fleet":
        if self.recurring is None:
            return self
        if not self.windows:
            raise ValueError(
                "recurring upgrades start when a window opens, and none is declared; write windows"
            )
        if self.recurring.channel != self.channel:
            raise ValueError(
                f"recurring.channel is {self.recurring.channel}, and the fleet gets releases of "
                f"{self.channel}; one of them is meant"
            )
        return self

    @model_validator(mode="after")
    def _spare_gateways_are_its_own(self) -> "Fleet":
        known = {one.name for one in self.gateways}
        if self.drills is not None and (strange := sorted(set(self.drills.spare) - known)):
            raise ValueError(f"drills: {strange[0]} is no gateway of {self.name}; name spare ones as above")
        return self

    @cached_property
    def _by_name(self) -> Mapping[str, Gateway]:
        return {gateway.name: gateway for gateway in self.gateways}

    @cached_property
    def groups(self) -> Mapping[str, tuple[Gateway, ...]]:
        """The gateways of each group, which can take each other's users, in the order of their names."""
        found: dict[str, list[Gateway]] = {}
        for gateway in sorted(self.gateways, key=lambda g: g.name):
            found.setdefault(gateway.group, []).append(gateway)
        return {group: tuple(found[group]) for group in sorted(found)}

    def settings_of(self, gateway: Gateway) -> tuple[Setting, ...]:
        """Return the gateway's settings in the order of their keys; its own come before the fleet's."""
        said = self.settings | gateway.settings
        return tuple(Setting(key=key, values=said[key]) for key in sorted(said))

    @cached_property
    def clusters(self) -> tuple[Name, ...]:
        """The clusters on whose nodes some of its gateways are, in the order of their names."""
        return tuple(sorted({one.placement.cluster for one in self.gateways if one.placement is not None}))

    def gateway(self, name: str) -> Gateway:
        """Return the gateway of that name.

        Raises:
            Unknown: The fleet's file has none.
        """
        if name not in self._by_name:
            raise Unknown(f"{self.name} has no gateway {name}: it is not in the fleet's file")
        return self._by_name[name]


def amount(written: str, of: int) -> int:
    """Return how many of so many a count ("3") or a share ("25%", rounded up) says; may be more than all."""
    return ceil(of * int(written[:-1]) / 100) if written.endswith("%") else int(written)


def _of_fleet(gateway: object, fleet: object) -> object:
    if isinstance(gateway, Gateway):
        return gateway.model_copy(update={"fleet": fleet}) if gateway.fleet is None else gateway
    if not isinstance(gateway, dict) or gateway.get("fleet") is not None:
        return gateway
    return gateway | {"fleet": fleet}


def _spoken(values: Sequence[object]) -> str:
    return ", ".join(str(value) for value in values)


def _shared_pool(gateways: Iterable[Gateway]) -> str | None:
    """Return which two slots have addresses in common, None when none do: neighbours when put in order."""
    pools4, pools6 = [], []
    for gateway in gateways:
        for slot in gateway.slots:
            place = (gateway.name, slot.name)
            pools4.append((*_ends(slot.pool4), place))
            if slot.pool6 is not None:
                pools6.append((*_ends(slot.pool6), place))
    for pools in (pools4, pools6):
        for (_, last, one), (first, _, other) in pairwise(sorted(pools)):
            if first <= last:
                return f"slot {one[1]} of gateway {one[0]} and slot {other[1]} of {other[0]} share a pool"
    return None


def _ends(pool: IPv4Network | IPv6Network) -> tuple[int, int]:
    """Return the first and the last address of a pool as numbers."""
    first = int(pool.network_address)
    return first, first + (1 << (pool.max_prefixlen - pool.prefixlen)) - 1
