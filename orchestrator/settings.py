"""Settings: where the engine, the metrics, the ledger and the files of this installation are."""

import difflib
import os
import pwd
import re
import sys
import tomllib
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from activities.drivers.rights import everybody_reads
from orchestrator.variables import PREFIX, unread
from policies.model.errors import BadInput

MOST_PORT = 65535

PACKAGED = Path("/etc/default/penstock")
"""Where the packages' units, and the command beside them, have variables from."""

_PASSWORD = re.compile(r"^\s*(\w+)\s*=.*://[^/\s@:]*:[^/\s@]+@", re.MULTILINE)
"""A line that gives an address with a password in it."""


def _address(said: str) -> str:
    """Return a host and its port; the sentence says how they are written."""
    host, _, port = said.rpartition(":")
    if not host or not port.isdigit() or not 1 <= int(port) <= MOST_PORT:
        raise ValueError(f"{said} is no address; write HOST:PORT")
    return said


def _place(said: str) -> str:
    """Return a URL; the sentence says how it is written."""
    parts = urlsplit(said)
    if not parts.scheme or not parts.hostname:
        raise ValueError(f"{said} is no URL; write it like https://HOST:PORT")
    return said


def _places(said: str) -> str:
    """Return URLs with commas between them; the sentence says how one is written."""
    return ",".join(_place(one.strip()) for one in said.split(","))


def _database(said: str) -> str:
    """Return a database's URL; the sentence says how it is written."""
    if "://" not in said:
        raise ValueError(f"{said} is no address of a ledger; write it like sqlite:////path/ledger.db")
    return said


Address = Annotated[str, AfterValidator(_address)]
Place = Annotated[str, AfterValidator(_place)]
Places = Annotated[str, AfterValidator(_places)]


def state_folder() -> Path:
    """Return where this installation keeps what it must not lose.

    `$PENSTOCK_STATE`, else `.state` beside its environment.
    """
    chosen = os.environ.get("PENSTOCK_STATE")
    return Path(chosen) if chosen else Path(sys.prefix).parent / ".state"


class Settings(BaseSettings):
    """Read from `PENSTOCK_…` variables, then `penstock.toml` in the state folder; unknown names refused."""

    file: ClassVar[Path] = state_folder() / "penstock.toml"

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    temporal_address: Address = Field("127.0.0.1:7233", description="host and port of the Temporal frontend")
    temporal_namespace: str = Field("default", description="namespace of this installation in Temporal")
    temporal_tls: bool = Field(
        False, description="whether the engine speaks TLS; it does when one of the next four is given"
    )
    temporal_authority: Path | None = Field(None, description="who vouches for the engine, in PEM")
    temporal_certificate: Path | None = Field(None, description="what is shown to the engine, in PEM")
    temporal_key: Path | None = Field(None, description="that certificate's key, in PEM")
    temporal_server_name: str | None = Field(
        None, description="what the engine's certificate names, where that is not its host"
    )
    temporal_api_key: Path | None = Field(None, description="file with the API key that the engine asks for")
    network_namespace: str | None = Field(
        None, description="network namespace to enter first; set by the lab"
    )
    prometheus_url: Places = Field(
        "http://127.0.0.1:9090",
        description="address of Prometheus; several with commas between them are replicas with the same "
        "series, and a read comes from the first one that answers whole",
    )
    prometheus_token: Path | None = Field(
        None, description="file with the bearer token for Prometheus, read anew for each request"
    )
    prometheus_authority: Path | None = Field(
        None, description="who vouches for Prometheus, in PEM; the authorities of this host without it"
    )
    prometheus_certificate: Path | None = Field(
        None, description="client certificate that is shown to Prometheus and those above it, in PEM"
    )
    prometheus_key: Path | None = Field(None, description="that certificate's key, in PEM")
    prometheus_headers: dict[str, str] = Field(
        {},
        description='further headers of each request, such as the tenant: `{"X-Scope-OrgID": "vpn"}` in the '
        "environment, a table in the file",
    )
    ledger_url: Annotated[str, AfterValidator(_database)] = Field(
        f"sqlite:///{state_folder() / 'ledger.db'}",
        description="database of releases, known-good and rollouts",
    )
    store: Path = Field(state_folder() / "store", description="content-addressed files of verified releases")
    windows: Path = Field(state_folder() / "windows", description="recorded observation windows, for replay")
    snapshots: Path = Field(state_folder() / "snapshots", description="evidence of failures, by digest")
    reports: Path = Field(
        state_folder() / "reports", description="where a report of every change is written when it has ended"
    )
    fleet: Path = Field(Path("fleet.yaml"), description="the fleet's gateways and limits")
    fleet_owner: str | None = Field(
        None,
        description="user who may own these files beside root and the process's own user: the API's, where a "
        "worker of another user reads what it writes",
    )
    fleets_at_once: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="fleets that upgrades may change at the same time; any number without it",
    )
    people: Path = Field(Path("people.yaml"), description="who is known, and what each may do")
    site: Path | None = Field(None, description="whom to wake, where logs are, and where runbooks open")
    socket: Path = Field(state_folder() / "penstock.sock", description="where the API answers on this host")
    api_address: Address | None = Field(
        None, description="host and port where the API answers on the network, too"
    )
    page_url: Place | None = Field(
        None, description="where people reach the page, when that is not the API's own address"
    )
    page_name: Path = Field(
        state_folder() / "page.name",
        description="the page's own name under .localhost, for browsers of its host; made at first use",
    )
    api_certificate: Path | None = Field(None, description="its certificate and those above it, in PEM")
    api_key: Path | None = Field(None, description="the certificate's key, in PEM")
    relay_address: Address | None = Field(None, description="host and port where agents reach the engine")
    enrolment_address: Address | None = Field(
        None, description="host and port where hosts get their first certificate"
    )
    relay_key: Path = Field(
        state_folder() / "relay.key", description="marks the tasks of agents; the same at every relay"
    )
    relay_authorities: Path | None = Field(
        None, description="who else vouches for gateways, in PEM: an authority of your own"
    )
    relay_certificate: Path | None = Field(None, description="the relay's own certificate, where it is yours")
    relay_certificate_key: Path | None = Field(None, description="that certificate's key, in PEM")
    relay_connections: int = Field(20_000, ge=10, description="connections that a relay keeps at once")
    authority: Path = Field(
        state_folder() / "authority", description="folder of what signs gateways' certificates"
    )
    gateway_certificate_days: int = Field(
        30, ge=1, le=825, description="how long a gateway's certificate is good; it is renewed by itself"
    )
    trust: Path = Field(Path("trust.yaml"), description="who may sign what")
    gates: Path = Field(Path("gates.yaml"), description="the questions a wave must answer")
    payload_keys: Path | None = Field(
        None,
        description="file of keys that seal what travels through the engine: the same master keys for "
        "workers and relays; an API's own are made by `penstock keys api`",
    )
    audit_key: Path = Field(
        state_folder() / "audit.key", description="signs checkpoints of the audit record; a worker makes it"
    )
    audit_checkpoints: Path = Field(
        state_folder() / "audit-checkpoints.jsonl", description="where they are kept; put it on another disk"
    )
    audit_late: Path = Field(
        state_folder() / "audit-late.jsonl", description="entries that the ledger could not take at once"
    )
    audit_syslog: bool = Field(False, description="whether they also go to the host's log")
    audit_webhook: Place | None = Field(None, description="where they are also posted to")
    worker_metrics_address: Address | None = Field(
        None, description="host and port where the worker answers Prometheus, /healthz and /readyz"
    )
    api_metrics_address: Address | None = Field(None, description="the same of the API")
    relay_metrics_address: Address | None = Field(None, description="the same of a relay")
    metrics_certificate: Path | None = Field(
        None, description="what is shown there and those above it, in PEM; beyond loopback it has to be"
    )
    metrics_key: Path | None = Field(None, description="that certificate's key, in PEM")
    metrics_clients: Path | None = Field(
        None, description="who signs the client certificates that are asked for there, in PEM"
    )
    metrics_token: Path | None = Field(
        None,
        description="what Prometheus shows there, one token in each line, read anew for each scrape; without "
        "it or metrics_clients nothing is told of fleets",
    )
    tracing_url: Place | None = Field(
        None,
        description="collector that gets one trace a change by OTLP over HTTP, like http://127.0.0.1:4318; "
        "needs penstock[tracing]",
    )
    notices: Path | None = Field(
        None, description="notices.yaml: who is told what without asking; without it nobody is"
    )
    complaints_key: Path | None = Field(
        None, description="file with the line that complaints are signed with, or a folder: FLEET.key"
    )
    tickets_key: Path | None = Field(
        None,
        description="file with the line that tickets are signed with, or a folder: FLEET.key; never that of "
        "complaints, whose sender would then close tickets, too",
    )
    source: Place | None = Field(
        None, description="the release repository, at one of the origins that trust.yaml allows"
    )

    @property
    def fleet_owner_number(self) -> int | None:
        """The number of the user who may own files of fleets, too; None for nobody.

        Raises:
            BadInput: This host has no user of that name.
        """
        if self.fleet_owner is None:
            return None
        try:
            return pwd.getpwnam(self.fleet_owner).pw_uid
        except KeyError:
            raise BadInput(
                f"{PREFIX}FLEET_OWNER is {self.fleet_owner}, and this host has no such user; change it"
            ) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Prefer what is passed, then the environment, then the file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, cls.file)


def read_settings(*, lenient: bool = False) -> Settings:
    """Return what the environment and the file say.

    Variables that nobody reads and passwords that everybody reads are refused, except for who is `lenient`.

    Raises:
        BadInput: One of them is wrong, or everybody may read a password in it; the sentence names which, the
            key, and what to do.
    """
    if not lenient:
        _refuse_unread_variables()
        for file in (Settings.file, PACKAGED):
            _refuse_readable_passwords(file)
    try:
        return Settings()
    except ValidationError as invalid:
        wrong = invalid.errors()[0]
        key = ".".join(map(str, wrong["loc"]))
        variable = f"{PREFIX}{key.upper()}"
        where = variable if variable in os.environ else f"{Settings.file}: {key}"
        if wrong["type"] == "extra_forbidden":
            close = difflib.get_close_matches(key, Settings.model_fields, n=1)
            known = f"known settings are {', '.join(Settings.model_fields)}"
            hint = f"did you mean {close[0]}?" if close else known
            raise BadInput(f"{Settings.file}: there is no setting {key}; {hint}") from invalid
        said = wrong["msg"].removeprefix("Value error, ")
        raise BadInput(f"{where} is {wrong['input']!r}: {said[0].lower()}{said[1:]}; change it") from invalid
    except tomllib.TOMLDecodeError as invalid:
        raise BadInput(f"{Settings.file} is no TOML: {invalid}") from invalid
    except OSError as error:
        raise BadInput(f"{Settings.file} cannot be read: {error.strerror}") from error


def _refuse_readable_passwords(file: Path) -> None:
    try:
        found = _PASSWORD.search(file.read_text())
    except (OSError, UnicodeDecodeError):
        return
    if found is not None and everybody_reads(file):
        raise BadInput(
            f"{file} has a password in {found[1]}, and everybody may read it; chmod o-r {file}, and replace "
            "the password"
        )


def _refuse_unread_variables() -> None:
    for wrong in unread(os.environ, (f"{PREFIX}{name.upper()}" for name in Settings.model_fields)):
        raise BadInput(wrong)
