"""How processes prove themselves to the engine, and the engine to them: TLS, a certificate, an API key."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from temporalio.service import TLSConfig

from activities.drivers.private_files import read_private
from activities.drivers.rights import read_own
from policies.model.errors import BadInput

if TYPE_CHECKING:
    import grpc

LOOPBACK = ("127.", "localhost:", "[::1]:")


@dataclass(frozen=True)
class Secured:
    """What is shown to the engine and asked of it; nothing, where it is on this host."""

    tls: bool = False
    authority: bytes | None = None
    """Who vouches for the engine, in PEM; whom this host trusts when left out."""
    certificate: bytes | None = None
    key: bytes | None = None
    server_name: str | None = None
    """What the engine's certificate names, where that is not the host that is dialled."""
    api_key: str | None = None

    @property
    def client_tls(self) -> TLSConfig | bool:
        """As the engine's client takes it."""
        if not self.tls:
            return False
        return TLSConfig(
            server_root_ca_cert=self.authority,
            domain=self.server_name,
            client_cert=self.certificate,
            client_private_key=self.key,
        )

    def channel_credentials(self) -> "grpc.ChannelCredentials | None":
        """As a channel of gRPC takes it; None without TLS."""
        import grpc  # noqa: PLC0415 - only relays need it, and it takes ten megabytes

        if not self.tls:
            return None
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


PLAIN = Secured()


def secured(
    address: str,
    *,
    tls: bool = False,
    authority: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    server_name: str | None = None,
    api_key: Path | None = None,
) -> Secured:
    """Return what these files say of an engine at this address.

    TLS is spoken as soon as any of them is given.

    Raises:
        BadInput: A file cannot be read, a key can be read by others or has no certificate, or an API key
            would travel in the clear.
    """
    if (certificate is None) != (key is None):
        raise BadInput("a certificate for the engine goes with its key: name both files, or none")
    spoken = tls or any(one is not None for one in (authority, certificate, server_name))
    if api_key is not None and not spoken and not address.startswith(LOOPBACK):
        raise BadInput(
            f"the API key for the engine at {address} would travel in the clear: set PENSTOCK_TEMPORAL_TLS"
        )
    shown = read_private(api_key, "the engine's API key").decode().strip() if api_key is not None else None
    if shown == "":
        raise BadInput(f"{api_key} is empty; write the engine's API key into it")
    return Secured(
        tls=spoken,
        authority=_read(authority),
        certificate=_read(certificate),
        key=read_private(key, "the engine's key") if key is not None else None,
        server_name=server_name,
        api_key=shown,
    )


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return read_own(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; check the path") from error
