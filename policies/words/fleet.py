"""The fleet: gateways, the groups that can take each other's users, and how far a change may reach."""

from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated

from pydantic import Field, model_validator

from policies.words.drain import DrainLimits
from policies.words.word import Duration, Name, Word

Step = Annotated[str, Field(pattern=r"^[1-9][0-9]*%?$", coerce_numbers_to_str=True)]
"""How many gateways have changed when a wave ends: a count ("1") or a share of those that can ("25%")."""


class Slot(Word):
    """A place on a gateway's host where one instance can run, with everything that must not be shared."""

    name: Name
    port: int = Field(ge=1, le=65535, description="TCP and UDP port of the instance in this slot")
    device: str = Field(max_length=8, description="prefix of the tun devices of the instance")
    pool4: IPv4Network
    pool6: IPv6Network | None = None


class Gateway(Word):
    """One service address on one host, with two or more slots."""

    name: Name
    group: Name = "main"
    domain: Name = "main"
    addresses: tuple[IPv4Address | IPv6Address, ...] = Field(min_length=1)
    port: int = Field(default=443, ge=1, le=65535, description="the port users dial")
    metrics_port: int = Field(default=9500, ge=1, le=65535)
    slots: tuple[Slot, ...] = Field(min_length=2)
    capacity: int = Field(default=1000, ge=1, description="sessions the host can carry")

    @property
    def task_queue(self) -> str:
        """The queue on which this gateway's agent takes its orders."""
        return f"gateway.{self.name}"

    @property
    def metrics_target(self) -> str:
        """Host and port at which Prometheus scrapes this gateway: its `instance` label."""
        address = next(a for a in self.addresses if a.version == 4)  # noqa: PLR2004 - the IP version
        return f"{address}:{self.metrics_port}"

    @model_validator(mode="after")
    def _slots_share_nothing(self) -> "Gateway":
        for what in ("name", "port", "device", "pool4"):
            seen = [getattr(slot, what) for slot in self.slots]
            if len(set(seen)) != len(seen):
                raise ValueError(f"gateway {self.name}: two slots have the same {what}")
        if self.port in [slot.port for slot in self.slots]:
            raise ValueError(f"gateway {self.name}: port {self.port} is the users' and cannot be a slot's")
        return self


class Limits(Word):
    """How much may change at once, and how long things may take."""

    steps: tuple[Step, ...] = ("1", "25%", "100%")
    switching: int = Field(default=2, ge=1, description="gateways switching at the same time")
    draining: int = Field(default=50, ge=1, description="old instances draining at the same time")
    switching_per_domain: int = Field(default=1, ge=1)
    headroom: float = Field(default=1.2, ge=1.0)
    drain_deadline: Duration = timedelta(hours=8)
    drain: DrainLimits = DrainLimits()
    lease: Duration = timedelta(seconds=120)
    kept: Duration = Field(default=timedelta(hours=24), description="how long a rollback stays one step away")
    snapshots_kept: Duration = Field(default=timedelta(days=30), description="how long evidence is kept")


class AtDeadline(StrEnum):
    """What happens by itself when nobody answers in time."""

    KNOWN_GOOD = "known_good"
    NOTHING = "nothing"


class RollbackRules(Word):
    """Which rollbacks that a person asks for wait for a second person; the automatic way back never does."""

    confirm_other_release: bool = Field(
        default=True, description="to a release that is not the gateways' known-good"
    )
    confirm_whole_group: bool = Field(
        default=False, description="of every gateway of a group, to known-good too"
    )
    answer_within: Duration = timedelta(minutes=15)
    at_deadline: AtDeadline = AtDeadline.KNOWN_GOOD


class Fleet(Word):
    """All gateways of one product that are upgraded together: the content of fleet.yaml."""

    name: Name
    product: Name
    channel: Name = "stable"
    gateways: tuple[Gateway, ...] = Field(min_length=1)
    limits: Limits = Limits()
    rollback: RollbackRules = RollbackRules()

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Fleet":
        names = [gateway.name for gateway in self.gateways]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"gateway {twice[0]} is listed twice")
        return self

    def gateway(self, name: str) -> Gateway:
        """Return the gateway of that name; KeyError if the fleet has none."""
        return next((g for g in self.gateways if g.name == name), None) or _missing(name)


def _missing(name: str) -> Gateway:
    raise KeyError(name)
