"""Credentials by reference: resolved at the moment of use, never stored, logged or sent through the engine.

    file:/run/secrets/repository-token       the file's content
    env:REPOSITORY_TOKEN                     a variable of this process
    vault:secret/data/penstock#token         a field of a KV version 2 secret, over Vault's HTTP API

Vault is asked at VAULT_ADDR with the token in the file VAULT_TOKEN_FILE names:
https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from pydantic import SecretStr

from activities.drivers.rights import read_own
from activities.drivers.source.transport import Transport
from activities.drivers.source.wire import Deadline
from policies.model.errors import BadInput, Unavailable
from policies.model.refusals import TrustError

LARGEST_BYTES = 65_536
LARGEST_FILE_BYTES = 16 * 2**20
"""A list of users and their password hashes is a credential, too."""
VAULT_SECONDS = 10.0
PUBLIC = frozenset(
    (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE", b"X509 CRL", b"PKCS7", b"PUBLIC KEY")
) | {b"DH PARAMETERS", b"X9.42 DH PARAMETERS", b"EC PARAMETERS"}
"""What is for everybody, by the label of its block in PEM."""
_BLOCK = re.compile(rb"-----BEGIN ([^\n]*?)-----")
_HASH = re.compile(rb"\$(?:1|2[abxy]?|5|6|7|y|gy)\$")


@dataclass(frozen=True)
class Reference:
    """A credential that is read whenever it is used; as text it is where that is from, which is no secret."""

    credentials: "Credentials"
    text: str

    def __call__(self) -> str:
        """Return what it stands for now; raise what `Credentials.resolve` does."""
        return self.credentials.resolve(self.text).get_secret_value()

    def __str__(self) -> str:
        """The reference."""
        return self.text


class Credentials:
    """Resolves references; `environment` is this process's own, or a test's."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def resolve(self, reference: str, deadline: Deadline | None = None) -> SecretStr:
        """Return what the reference stands for, wrapped so that it prints as stars.

        This blocks: by `VAULT_SECONDS` at most, and no longer than to the deadline.

        Raises:
            BadInput: the reference is malformed, leads to nothing, or to a file that others see.
            Unavailable: the store behind it does not answer.
        """
        kind, _, rest = reference.partition(":")
        match kind:
            case "file":
                return SecretStr(_file(Path(rest)))
            case "env":
                return SecretStr(self._variable(rest))
            case "vault":
                path, _, field = rest.partition("#")
                return SecretStr(self._vault(path, field, deadline))
            case _:
                raise BadInput("a credential is named as file:…, env:… or vault:…#…, never written down")

    def secret(self, reference: str) -> Reference:
        """Return what reads the reference when it is called, and raises what `resolve` does."""
        return Reference(self, reference)

    def _variable(self, name: str) -> str:
        value = self._environment.get(name)
        if not value:
            raise BadInput(f"the variable {name} is not set; it should hold a credential")
        return value

    def _vault(self, path: str, field: str, deadline: Deadline | None) -> str:
        address, token = (
            self._variable("VAULT_ADDR").rstrip("/"),
            _file(Path(self._variable("VAULT_TOKEN_FILE"))),
        )
        transport = Transport([address], deadline_seconds=VAULT_SECONDS)
        transport.authorize(address, f"Bearer {token}")
        within = transport.deadline() if deadline is None else deadline.within(VAULT_SECONDS)
        try:
            answer = transport.get(f"{address}/v1/{path}", most=LARGEST_BYTES, deadline=within)
        except TrustError as error:
            raise Unavailable(f"Vault does not give {path}: {error.reason or error.code}") from None
        try:
            value = json.loads(answer)["data"]["data"][field]
        except (ValueError, KeyError, TypeError):
            value = None
        if not isinstance(value, str) or not value:
            raise BadInput(f"the Vault secret {path} has no field {field}")
        return value


def _is_secret(content: bytes) -> bool:
    """Return whether it is for its owner alone.

    Certificates, lists of revoked ones and parameters are for everybody, with whatever text OpenSSL writes
    before them, and so are users' addresses. What lies in one file with a key is not.
    """
    labels = {*_BLOCK.findall(content)}
    if labels:
        return not labels <= PUBLIC or b"PRIVATE KEY" in content or _HASH.search(content) is not None
    return not all(map(_is_address_of_a_user, content.split(b"\n")))


def _is_address_of_a_user(line: bytes) -> bool:
    """Return whether it is a line of OpenVPN's `ifconfig-pool-persist`, or an empty one."""
    name, *addresses = line.decode(errors="replace").strip().split(",")
    try:
        return not name or bool([ip_address(one) for one in addresses if one])
    except ValueError:
        return False


def _file(path: Path) -> str:
    try:
        raw = read_own(path, secret=_is_secret, most=LARGEST_FILE_BYTES)
        if len(raw) > LARGEST_FILE_BYTES:
            raise BadInput(f"{path} is too large for a credential")
        value = raw.decode().strip()
    except UnicodeDecodeError:
        raise BadInput(f"the credential file {path} is no text; write it in PEM") from None
    except OSError as error:
        raise BadInput(f"the credential file {path} cannot be read: {type(error).__name__}") from None
    if not value:
        raise BadInput(f"the credential file {path} is empty")
    return value
