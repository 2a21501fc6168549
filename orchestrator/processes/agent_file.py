"""A gateway's own file: what its agent and its exporter are told there, and nowhere else."""

import logging
import os
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from activities.drivers.certificate.settings import CertificateSettings
from activities.drivers.daemon.exempt import Exempt
from activities.drivers.daemon.products import daemon_of
from orchestrator.processes.enrolled_file import EnrolledSettings
from orchestrator.variables import unread
from policies.model.client_profiles import MOST_OPTIONS, ClientOption, file_of
from policies.model.fleet import Gateway
from policies.model.host_limits import HostLimits
from policies.model.value import Duration, Name, Value

_log = logging.getLogger(__name__)

UNNAMED = "ocserv"
"""What a gateway runs whose file names no daemon."""


def tell_of_unread_variables() -> None:
    """Name each variable that nobody reads on a gateway's host, and go on: users need the gateway."""
    for wrong in unread(os.environ):
        _log.warning("%s", wrong)


class ProbeSettings(Value):
    """Who the agent logs in as when it probes an instance; secrets by file only."""

    user: str
    """A VPN user of its own, for this alone."""
    password: Path | None = None
    """File with its password, mode 600; ocserv's users have one, and OpenVPN's may have one, too."""
    certificate: Path | None = None
    """Its certificate, in PEM; users of OpenVPN and strongSwan are known by theirs."""
    key: Path | None = None
    """The certificate's key, in PEM, mode 600."""
    authority: Path
    """Who has signed the gateways' certificate, in PEM."""
    name: str | None = None
    """The name in that certificate, where it is not the address."""
    camouflage: Path | None = None
    """File with ocserv's `camouflage_secret`, mode 600; left out where releases have no camouflage."""
    options: tuple[ClientOption, ...] = Field(
        default=(),
        max_length=MOST_OPTIONS,
        description="how an OpenVPN client has to be set up to get in, as a profile of fleet.yaml says it",
    )
    files: dict[Name, Path] = Field(
        default={},
        max_length=MOST_OPTIONS,
        description="keys and authorities that these options and client profiles name, mode 600",
    )
    target: str | None = None
    """What is pinged through the tunnel; the gateway's own end of it where left out."""

    @model_validator(mode="after")
    def _options_name_files(self) -> Self:
        named = {name for option in self.options if (name := file_of(option)) is not None}
        if lacking := sorted(named - {*self.files}):
            raise ValueError(f"options name {lacking[0]}; write `files: {{{lacking[0]}: PATH}}` beside them")
        return self


class ExporterSettings(Value):
    """Where the exporter answers, and whom; beyond loopback only over TLS, to those who show who they are."""

    address: IPv4Address | IPv6Address | None = Field(
        None, description="where it listens; the gateway's management address, else loopback"
    )
    certificate: Path | None = Field(None, description="its certificate and those above it, in PEM")
    key: Path | None = Field(None, description="the certificate's key, in PEM")
    clients: Path | None = Field(None, description="who signs the client certificates it asks for, in PEM")
    token: Path | None = Field(
        None, description="what Prometheus shows, one token in each line; read anew for each scrape"
    )
    connections: int = Field(64, ge=8, le=1000, description="how many it has at most")
    journal: bool = Field(
        False, description="whether daemons' logs, which name users, also go to the host's journal"
    )
    probe_tunnels: bool = Field(
        False,
        description="whether users' tunnels are pinged, each once in two minutes, to count lost packets",
    )


class FrontSettings(Value):
    """What stands before the slots: a HAProxy of ours, the program of a hook, or proxies of yours."""

    certificate: Name = "certificate"
    """Their certificate and those above it, in PEM: that of the instances."""
    key: Name = "key"
    """The certificate's key, in PEM."""
    proxies: tuple[IPv4Address | IPv6Address, ...] = ()
    """Addresses of the nginx through which users of OpenVPN come; docs/openvpn.md."""
    logs: tuple[Path, ...] = ()
    """What that nginx logs, as files of this host: its error log with the level `info`, its access log."""
    hook: Path | None = Field(None, description="the program of `steering: hook`; docs/steering.md")


class AgentSettings(EnrolledSettings):
    """The agent's own file: its gateway, its folder, whom it trusts, which files templates may ask for."""

    gateway: Gateway
    """This gateway, as fleet.yaml has it, with its `fleet`."""
    root: Path = Field(description="folder of versions, slots and the journal")
    product: Name
    """What this host runs; it starts no other product."""
    channel: Name
    """Whose releases it starts; those of no other channel."""
    trust: Path = Field(description="trust.yaml of this host; the orchestrator's word is not enough")
    credentials: dict[str, str] = Field(
        default={}, description="what templates refer to by name: file:PATH, env:NAME or vault:PATH#FIELD"
    )
    server_certificate: CertificateSettings | None = Field(
        None,
        description="how this host renews the certificate that users see, below `root`: credentials name "
        "certificate/current/chain.pem and key.pem there",
    )
    front: FrontSettings = FrontSettings()
    """What users are shown before they are redirected, with `steering: redirect`; and the hook of another."""
    probe: ProbeSettings
    """Who logs in to see whether an instance works."""
    exporter: ExporterSettings = ExporterSettings()
    """Where and whom `penstock exporter` answers."""
    pseudonyms: Path | None = Field(
        None,
        description="the fleet's key that makes words of addresses and names in snapshots; the same on every "
        "host of the fleet, and clients' addresses are left out without it",
    )
    snapshots_kept: Duration = Field(timedelta(days=30), description="how long this host keeps its snapshots")
    exempt: Exempt = Field(default=Exempt(), description="whose sessions no drain deadline ends")
    limits: HostLimits = Field(default=HostLimits(), description="what this host does at most, by any order")

    @model_validator(mode="after")
    def _what_is_renewed_is_served(self) -> Self:
        chain = f"file:{self.certificate_folder}/current/chain.pem"
        named = self.credentials.values()
        if self.server_certificate is not None and named and chain not in named:
            raise ValueError(f"nothing would serve what server_certificate gets: name {chain} in credentials")
        return self

    @model_validator(mode="after")
    def _the_probe_can_log_in(self) -> Self:
        daemon = daemon_of(self.gateway.daemon)
        missing = [key for key in daemon.probe_needs if getattr(self.probe, key) is None]
        instead = [key for key in daemon.probe_instead if getattr(self.probe, key) is not None]
        if missing and not instead:
            keys = " and ".join(f"`{key}`" for key in missing)
            keys += "".join(f", or `{key}`," for key in daemon.probe_instead)
            raise ValueError(
                f"nobody could probe {daemon.product}: write {keys} under probe, its own files; "
                f"gateway.daemon is {daemon.product}" + " (also when left out)" * (daemon.product == UNNAMED)
            )
        return self

    @model_validator(mode="after")
    def _the_front_has_a_certificate(self) -> Self:
        lacking = [one for one in (self.front.certificate, self.front.key) if one not in self.credentials]
        if self.gateway.steering == "redirect" and lacking:
            raise ValueError(
                f"HAProxy has nothing to show to users: write {lacking[0]} under credentials, or under front "
                "the names of those that are its certificate and key"
            )
        return self

    @model_validator(mode="after")
    def _the_hook_is_there(self) -> Self:
        if (self.gateway.steering == "hook") != (self.front.hook is not None):
            raise ValueError("steering: hook and front.hook belong together: write both, or neither")
        return self

    @model_validator(mode="after")
    def _proxies_carry_openvpn(self) -> Self:
        if self.front.logs and not self.front.proxies:
            raise ValueError(
                "front.logs are those of an nginx through which users come; write its addresses as "
                "front.proxies, or leave logs out"
            )
        if self.front.proxies and self.gateway.daemon != "openvpn":
            raise ValueError(
                f"front.proxies is for openvpn: users of {self.gateway.daemon} find their session by their "
                "address, and behind a proxy they have none of their own"
            )
        return self

    @property
    def certificate_folder(self) -> Path:
        """Where this host keeps the certificate that users see, where it renews it."""
        return self.root / "certificate"

    @field_validator("gateway")
    @classmethod
    def _gateway_knows_whose_it_is(cls, gateway: Gateway) -> Gateway:
        if gateway.fleet is None:
            raise ValueError("say which fleet it is of: `fleet: NAME`, as fleet.yaml is called")
        return gateway
