"""A host that gets its gateway's certificate, and what it has then."""

import ssl
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from orchestrator.processes.agent_file import AgentSettings
from orchestrator.processes.certificate import certificate_renewal
from tests.fakes.authority import EnterpriseCa

NAME = "vpn.penstock.test"
MONTH = timedelta(days=30)


class CertifiedHost:
    """The agent's file of one gateway, and the authority that its users trust."""

    def __init__(self, folder: Path, source: Mapping[str, object], authority: Path, name: str = NAME) -> None:
        self.folder = folder
        self.file = folder / "agent.yaml"
        content = {
            "gateway": {"name": "gw-1", "fleet": "edge", "addresses": ["192.0.2.1"], "slots": []},
            "root": str(folder / "penstock"),
            "product": "ocserv",
            "channel": "stable",
            "trust": str(folder / "trust.yaml"),
            "temporal_address": "127.0.0.1:1",
            "server_certificate": {"names": [name], **source},
            "probe": {"user": "probe", "password": str(folder / "probe"), "authority": str(authority)},
        }
        content["gateway"]["slots"] = [  # type: ignore[index]
            {"name": slot, "port": 4431 + at, "device": f"vpn{slot}", "pool4": f"10.80.{at}.0/24"}
            for at, slot in enumerate("ab")
        ]
        self.file.write_text(yaml.safe_dump(content))
        self.settings = AgentSettings.model_validate(content)
        self.renewal = certificate_renewal(self.settings)
        self.current = self.settings.certificate_folder / "current"

    def is_due(self, **later: float) -> bool:
        return self.renewal.is_due(datetime.now(UTC) + timedelta(**later))

    def killed_at(self, line: str) -> None:
        """Let a renewal die by SIGKILL there."""
        command = [sys.executable, "-m", "tests.drivers.dying_renewal", str(self.file), line]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == -9, ended.stderr

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that counts; its key is its own."""
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            self.current / "chain.pem", self.current / "key.pem"
        )
        return x509.load_pem_x509_certificate((self.current / "chain.pem").read_bytes())

    def left(self) -> list[str]:
        """What lies in the folder beside generations and the link to one of them."""
        names = {path.name for path in self.settings.certificate_folder.iterdir()}
        return sorted(name for name in names - {"current", "lock"} if not name.isdecimal())


class Dropping:
    """Who drops certificates as certbot does, by an authority of its own, and a host that takes them."""

    def __init__(self, folder: Path) -> None:
        self.corp = EnterpriseCa(folder / "corp")
        self.live = folder / "live"
        self.live.mkdir()
        self.chain, self.key = self.live / "fullchain.pem", self.live / "privkey.pem"
        self.source = {"file": {"certificate": str(self.chain), "key": str(self.key)}}
        self.host = CertifiedHost(folder, self.source, self.corp.roots)

    def drop(
        self,
        name: str = NAME,
        *,
        begins: timedelta = -timedelta(minutes=5),
        ends: timedelta = MONTH,
        by: EnterpriseCa | None = None,
    ) -> x509.Certificate:
        """Have another certificate and its key there; return it."""
        key, chain = (by or self.corp).leaf(
            "gateway",
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
            names=(x509.DNSName(name),),
            starts=begins,
            ends=ends,
        )
        self.chain.write_bytes(chain.read_bytes())
        self.key.write_bytes(key.read_bytes())
        self.key.chmod(0o600)
        return x509.load_pem_x509_certificate(chain.read_bytes())
