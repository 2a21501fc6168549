"""From where a host gets its gateway's certificate: `server_certificate` of the agent's file."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from policies.model.value import Value

_DNS = re.compile(r"(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SIGNS = re.compile(r"[A-Za-z0-9_./-]+/sign/[A-Za-z0-9_.-]+")
_HTTPS = re.compile(r"https://[^\s/?#@]+(?:/[^\s?#]*)?")


def _subject(written: str) -> str:
    try:
        return str(ipaddress.ip_address(written))
    except ValueError:
        if _DNS.fullmatch(written):
            return written
        raise ValueError(
            f"{written} is neither an address nor a name in small letters, such as vpn.example"
        ) from None


def _https(written: str) -> str:
    if not _HTTPS.fullmatch(written):
        raise ValueError(f"{written} is no https address; a key is asked for over nothing else")
    return written.rstrip("/")


def _sign_path(written: str) -> str:
    if not _SIGNS.fullmatch(written):
        raise ValueError(f"{written} is not MOUNT/sign/ROLE, such as pki/sign/vpn")
    return written


Subject = Annotated[str, AfterValidator(_subject)]
"""For whom a certificate is: a name of DNS, with `*.` before it where it is for all below, or an address."""

Https = Annotated[str, AfterValidator(_https)]

SignPath = Annotated[str, AfterValidator(_sign_path)]
"""Where a role of a PKI signs requests."""


class ExternalAccount(Value):
    """What an authority gave its customer, so that a host's account is taken for his (RFC 8555, 7.3.4)."""

    name: str = Field(description="how the authority calls it: the key identifier")
    key: str = Field(description="its key in base64url: file:PATH, env:NAME or vault:PATH#FIELD")


class AcmeSettings(Value):
    """An authority that speaks ACME (RFC 8555), and how it is shown whose the names are: one of two ways."""

    directory: Https = Field(description="where it begins: https://acme-v02.api.letsencrypt.org/directory")
    external_account: ExternalAccount | None = None
    """For authorities that give certificates to their customers alone."""
    contact: str | None = Field(None, description="a mail address that the authority may write to")
    authority: Path | None = Field(
        None, description="who vouches for the directory itself, in PEM; the system's own where left out"
    )
    http_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="http-01: where the host answers while it is asked; authorities come to port 80",
    )
    dns_hook: Path | None = Field(
        None,
        description="dns-01: a program, called as `present NAME VALUE` and `clean NAME VALUE`, that has a "
        "TXT record seen, or gone, before it ends with 0",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.http_port is None) == (self.dns_hook is None):
            raise ValueError("say http_port, or dns_hook: one of the two")
        return self


class VaultSettings(Value):
    """The PKI of a Vault or an OpenBao, which signs what its role allows."""

    address: Https = Field(description="of its API, such as https://vault.example:8200")
    path: SignPath = Field(description="MOUNT/sign/ROLE, such as pki/sign/vpn")
    token: str = Field(description="what it is asked with: file:PATH, env:NAME")
    authority: Path | None = Field(
        None, description="who vouches for its API, in PEM; the system's own where left out"
    )
    namespace: str | None = Field(None, description="in which the mount lies, where there are any")


class FileSettings(Value):
    """Files that something else renews, such as certbot: they are taken once they hold up."""

    certificate: Path = Field(description="the certificate and those above it, in PEM: fullchain.pem")
    key: Path = Field(description="its key, in PEM, chmod 600: privkey.pem")


class CertificateSettings(Value):
    """From where this host gets the certificate that users see, and for which names; exactly one source."""

    names: tuple[Subject, ...] = Field(
        min_length=1, max_length=100, description="what it has to name: names of DNS, addresses"
    )
    acme: AcmeSettings | None = None
    """An authority that speaks ACME."""
    vault: VaultSettings | None = None
    """The PKI of a Vault or an OpenBao."""
    file: FileSettings | None = None
    """Files that something else renews."""

    @property
    def source(self) -> AcmeSettings | VaultSettings | FileSettings:
        """The one source that was named."""
        return self._sources[0]

    @property
    def _sources(self) -> list[AcmeSettings | VaultSettings | FileSettings]:
        return [one for one in (self.acme, self.vault, self.file) if one is not None]

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if len(self._sources) != 1:
            raise ValueError("say acme, vault or file: exactly one of them")
        if self.acme is not None and self.acme.dns_hook is None and any("*" in one for one in self.names):
            raise ValueError("an authority gives names with * for dns-01 only; say dns_hook")
        return self
