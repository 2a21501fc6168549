"""What the own file of an agent, or of a cluster's driver, says of its way to the engine."""

from pathlib import Path

from pydantic import Field, field_validator

from policies.model.value import Value


class EnrolledSettings(Value):
    """Where its orders come from, and the certificate by which it is known there."""

    temporal_address: str = Field(description="host and port of a relay; of the engine itself in a lab")
    temporal_namespace: str = "default"
    """The engine's namespace, as the orchestrator has it."""
    certificate: Path | None = Field(None, description="by which relays know it; renewed by itself")
    key: Path | None = Field(None, description="its key, which never leaves this host")
    authority: Path | None = Field(None, description="who vouches for relays, in PEM")
    server_name: str | None = Field(
        None, description="what the certificate over there names; a relay's is known"
    )
    api_key: Path | None = Field(
        None, description="file with the engine's API key, where no relay is between"
    )
    payload_keys: Path | None = Field(None, description="its own keys, which seal its orders")
    tracing_url: str | None = Field(
        None,
        description="collector that hears of its steps by OTLP over HTTP; needs penstock[tracing]",
    )

    @field_validator("tracing_url")
    @classmethod
    def _collector_has_an_address(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError(f"{url} is no address of a collector; write it like http://127.0.0.1:4318")
        return url
