"""A scratch gateway with client sites, each in a network namespace of its own, and real releases for it."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from ssl import PEM_cert_to_DER_cert
from typing import Any, cast

from activities.drivers.credentials import Credentials
from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.daemon.port import Daemon, Secret
from activities.drivers.runtime.host.adoption import HostAdoption
from activities.drivers.runtime.host.bounds import HostBounds
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.runtime.host.own_unit import OwnUnit
from activities.drivers.runtime.host.sessions import SlotSessions
from activities.drivers.runtime.host.slot_folders import SlotFolders
from activities.drivers.runtime.host.slots import HostSlots
from activities.drivers.runtime.host.snapshots import HostSnapshots
from activities.drivers.runtime.host.units import Units
from activities.drivers.steering.nftables import NftablesTable
from activities.drivers.steering.orders import SteeringOrders
from activities.drivers.steering.port import Means, SteeringDriver
from activities.drivers.store.trees import furnish
from activities.refusals import DownloadFailed
from activities.releases import Admitted
from deploy.lab import trees
from deploy.lab.namespaces import end_inhabitants
from policies.model.fleet import Gateway, Slot
from policies.model.host import Host
from policies.model.operation import Operation
from policies.model.plan import ReleaseRef
from policies.model.refusals import SignerNotAllowed, SignerRevoked
from policies.model.release import Artifact, ReleaseFile, ReleaseLink, ReleaseManifest
from policies.model.value import Digest, digest_of
from tests.drivers.gateway_client import Client

PREFIX = "psh-"
TEMPLATE = Path(__file__).parents[2] / "deploy/lab/ocserv.conf.template"
PROGRAMS = ("ocserv", "openconnect", "nft", "ip", "unshare", "certtool", "ocpasswd", "conntrack")


def why_not_here() -> str | None:
    """Return why no real gateway can run here, None when one can."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun for tunnels"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"needs {missing[0]}" if missing else None


def gateway(name: str = "gw-1") -> Gateway:
    return Gateway(
        name=name,
        addresses=(ip_address("10.77.0.1"), ip_address("fd77::1")),
        capacity=100,
        slots=tuple(
            Slot(
                name=slot,
                port=4431 + number,
                device=f"vpn{slot}",
                pool4=ip_network(f"10.90.{number}.0/24"),
                pool6=ip_network(f"fd90:{number}::/64"),
            )
            for number, slot in enumerate("abc")
        ),
    )


def operation(
    step: str, rollout: str = "r-1", epoch: int = 1, digest: str = "sha256:" + "0" * 64
) -> Operation:
    return Operation(rollout=rollout, epoch=epoch, gateway="gw-1", step=step, digest=digest)


class TreeAdmission:
    """Admits releases made of the daemon of this machine, as if they had been signed."""

    product, executable, made_of = "ocserv", "usr/sbin/ocserv", TEMPLATE

    image = digest_of(b"the image of the tree")
    """What a node would report to run of each of them."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self.template = folder / self.made_of.name
        if not self.tree.exists():
            self.collect()
            shutil.copy(self.made_of, self.template)
        self.revoked = False
        self.reachable = True
        self.left = ""
        """The only signer of all of them, once the trust policy does not name that person any more."""
        self.met: Host | None = None
        """What it was asked last to fit."""

    def collect(self) -> None:
        """Make the tree."""
        trees.collect_host_tree(self.tree)

    def manifest(self, version: str) -> ReleaseManifest:
        files, links = [], []
        for path in sorted(self.tree.rglob("*")):
            name = str(path.relative_to(self.tree))
            if path.is_symlink():
                links.append(ReleaseLink(path=name, target=str(path.readlink())))
            elif path.is_file():
                content = path.read_bytes()
                mode = path.stat().st_mode & 0o777
                files.append(ReleaseFile(path=name, sha256=_hex(content), size=len(content), mode=mode))
        template = self.template.read_bytes()
        return ReleaseManifest.model_validate(
            {
                "product": self.product,
                "version": version,
                "channel": "stable",
                "rollback_index": 1,
                "serial": 1,
                "issued_at": datetime.now(UTC),
                "expires_at": datetime.now(UTC) + timedelta(days=30),
                "platforms": ({"os": "linux", "arch": "amd64"},),
                "daemon": {"kind": self.product, "executable": self.executable},
                "image": self.image.removeprefix("sha256:"),
                "artifacts": (
                    Artifact(
                        name="tree.tar",
                        sha256="0" * 64,
                        size=1,
                        media_type="application/x-tar",
                        unpack="tar",
                        files=tuple(files),
                        links=tuple(links),
                    ),
                    Artifact(
                        name=self.made_of.name,
                        sha256=_hex(template),
                        size=len(template),
                        media_type="text/plain",
                    ),
                ),
                "config_schema": {"sha256": _hex(template), "size": len(template), "version": 1},
                "config_compat": {"reads": (1, 1), "writes": 1},
                "from_versions": {"min": 0},
                "protocol_compat": (self.product,),
                "drain": {"min_seconds": 0, "max_seconds": 60},
                "requires_approval_for": (),
            }
        )

    def release(self, version: str) -> ReleaseRef:
        return self.manifest(version).reference(digest_of(version.encode()))

    async def admit(self, release: ReleaseRef, source: str, *, host: Host) -> Admitted:
        if not self.reachable:
            raise DownloadFailed(f"{source} is away")
        return await self.reconsider(release, host=host)

    def known_good(self) -> tuple[Digest, ...]:
        return ()

    def collect_garbage(self, keep: Collection[Digest]) -> tuple[Digest, ...]:
        return ()

    async def reconsider(self, release: ReleaseRef, *, host: Host) -> Admitted:
        self.met = host
        if self.revoked:
            raise SignerRevoked(f"{release.version} was revoked")
        return Admitted(
            manifest=self.manifest(release.version),
            signers=("release@example.org",),
            reference=release,
            reason="as if signed",
            verification=cast("Any", None),
        )

    async def require_way_back(self, release: ReleaseRef, source: str) -> None:
        if self.left:
            raise SignerNotAllowed(f"{self.left} may not sign for this product and channel")

    async def unpack(self, admitted: Admitted, into: Path, *, folders: Sequence[str]) -> None:
        shutil.copytree(self.tree, into / "root", symlinks=True)
        furnish(into / "root", folders)
        shutil.copy(self.template, into / self.made_of.name)

    async def lay_image(self, admitted: Admitted, source: str, into: Path) -> None:
        raise AssertionError("its image is nothing but a digest")


def _hex(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _program(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/exe").readlink().name
    return ""


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class GatewayLab:
    """The namespaces, files and parts of one gateway."""

    credentials: Mapping[str, str] = {"users": "users", "certificate": "gw.pem", "key": "gw.key"}

    def __init__(self, folder: Path, tag: str, clients: int = 6) -> None:
        self.folder, self.tag, self.clients = folder, tag, clients
        self.namespace = f"{PREFIX}{tag}gw"
        self.gateway = gateway()
        self.root = folder / "penstock"
        self.prefix = f"{PREFIX}{tag}"
        self.people: list[Client] = []
        self.record: list[tuple[str, str]] = []
        """What the host would have in its own record of what was done with units, and of refusals."""

    def build(self) -> None:
        self.clear()
        lines = [f"netns add {self.namespace}"]
        lines += [f"netns add {PREFIX}{self.tag}c{number}" for number in range(1, self.clients + 1)]
        self._ip("\n".join(lines))
        self._ip(
            "link set lo up\nlink add br0 type bridge\nlink set br0 up\naddress add 10.77.0.1/24 dev br0\n"
            "address add fd77::1/64 dev br0 nodad",
            self.namespace,
        )
        for number in range(1, self.clients + 1):
            site = f"{PREFIX}{self.tag}c{number}"
            self._ip(
                f"link add port{number} master br0 up type veth peer name eth0 netns {site}", self.namespace
            )
            self._ip(
                f"link set lo up\nlink set eth0 up\naddress add 10.77.0.{10 + number}/24 dev eth0\n"
                f"address add fd77::{10 + number}/64 dev eth0 nodad",
                site,
            )
        self.furnish()

    def lead_to(self, number: int, *addresses: str) -> str:
        """Give a client's site these addresses, reach them through the gateway; return its namespace."""
        site = f"{self.prefix}c{number}"
        for address in map(ip_address, addresses):
            # A busy kernel is late to look for another's IPv6 address, also on loopback.
            how, by = ("/32 dev lo", "10.77.0") if address.version == 4 else ("/128 dev lo nodad", "fd77:")
            joint = "." if address.version == 4 else ":"
            self._ip(f"address replace {address}{how}", site)
            self._ip(f"route replace {address} via {by}{joint}{10 + number}", self.namespace)
        self._ip("route replace 10.90.0.0/16 via 10.77.0.1\nroute replace fd90::/16 via fd77::1", site)
        forward = "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"
        subprocess.run(["ip", "netns", "exec", self.namespace, "sysctl", "-qw", *forward], check=True)
        return site

    def furnish(self) -> None:
        """Make the credentials of the gateway and its users, and the parts."""
        self._credentials()
        self.compose()

    def compose(self, **more: str) -> None:
        """Make the parts anew, as an agent that has just been started does, with more credentials."""
        self.admission = self._made_admission()
        self.login = self._made_login()
        self.journal = Journal(self.root / "journal.jsonl", HostBounds(self.gateway.name))
        daemon = self._made_daemon()
        self.folders = self._made_folders(daemon)
        adopted = self.folders.adopted
        credentials = {
            name: Credentials({}).secret(f"file:{self.folder / file}")
            for name, file in {**self.credentials, **more}.items()
        }
        self.orders = SteeringOrders(
            self.gateway,
            self.journal,
            self.folders.live,
            self.root / "steering.json",
            adopted=adopted.slot if adopted else None,
            proven=self.folders.is_proven,
        )
        self.means = Means(
            self.root,
            dialled=daemon.dialled(self.gateway),
            wandering=daemon.wandering,
            mid_session=daemon.mid_session,
            users=self.folders.users,
            credentials=credentials,
        )
        self.table = self._made_steering()
        self._compose_slots(credentials)
        self.sessions = SlotSessions(self.folders, self.journal, self.table)
        self.snapshots = HostSnapshots(self.folders, self.slots.observe, self.table.words)

    def _made_admission(self) -> TreeAdmission:
        return TreeAdmission(self.folder)

    def _made_login(self) -> ProbeLogin:
        return ProbeLogin(
            user="probe",
            password=self.folder / "probe",
            authority=self.folder / "ca.pem",
            certificate=self.folder / "probe.pem",
            key=self.folder / "probe.key",
        )

    def _made_daemon(self) -> Daemon:
        return Ocserv(self.login)

    def _made_steering(self) -> SteeringDriver:
        return NftablesTable(self.orders, self.means)

    def _made_folders(self, daemon: Daemon) -> SlotFolders:
        return SlotFolders(self.gateway, self.root, daemon)

    def _compose_slots(self, credentials: Mapping[str, Secret]) -> None:
        unit = OwnUnit(Units(), self._note)
        self.adoption = HostAdoption(self.folders, self.journal, self.table, unit, self._note)
        self.slots = HostSlots(
            self.folders, self.journal, self.table, self.admission, credentials, self.adoption
        )

    def certify(self, name: str, *, days: int = 2, address: str = "10.77.0.1", kind: str = "--ecc") -> str:
        """Make a key and a certificate of the gateway, signed by the lab's authority; return its SHA-256."""
        more = f'ip_address = "{address}"\nip_address = "fd77::1"\ntls_www_server\nsigning_key\n'
        self._certify(name, f"expiration_days = {days}\n{more}", by="ca", kind=kind)
        return hashlib.sha256(PEM_cert_to_DER_cert((self.folder / f"{name}.pem").read_text())).hexdigest()

    def certify_user(self, number: int) -> None:
        """Make a key and a certificate of that user, signed by the lab's authority."""
        self._certify(f"user{number}", "expiration_days = 2\ntls_www_client\nsigning_key\n", by="ca")

    def shown_by(self, number: int) -> tuple[str, ...]:
        """Return the options by which that user's client shows its certificate."""
        return "-c", f"{self.folder}/user{number}.pem", "-k", f"{self.folder}/user{number}.key"

    def revoke(self, *numbers: int) -> None:
        """Write the list of revoked certificates anew, with those of these users in it."""
        template, revoked = self.folder / "crl.cfg", self.folder / "revoked.pem"
        template.write_text("crl_next_update = 2\ncrl_number = 1\n")
        revoked.write_text("".join((self.folder / f"user{number}.pem").read_text() for number in numbers))
        command: list[str | Path] = ["certtool", "--generate-crl", "--template", template]
        command += ["--load-ca-privkey", self.folder / "ca.key"]
        command += ["--load-ca-certificate", self.folder / "ca.pem", "--outfile", self.folder / "crl"]
        command += ["--load-certificate", revoked] if numbers else []
        subprocess.run(command, check=True, capture_output=True)

    def daemons(self) -> list[int]:
        """Return the main processes of every ocserv in the gateway's namespace, whoever started it."""
        said = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True
        ).stdout
        found = [int(pid) for pid in said.split() if _program(int(pid)) == "ocserv"]
        return [pid for pid in found if _program(_parent(pid)) != "ocserv"]

    def client(
        self, number: int, *, version: int = 4, url_port: int = 443, more: tuple[str, ...] = ()
    ) -> Client:
        site = f"{self.prefix}c{number}"
        client = Client(site, self.folder, number, version=version, url_port=url_port, more=more)
        self.people.append(client)
        return client

    async def running(self, version: str, epoch: int = 1) -> str:
        """Ensure that the release is staged and runs; return its slot."""
        release = self.admission.release(version)
        await self.slots.stage(operation("stage", epoch=epoch, digest=release.digest), release, "lab")
        started = await self.slots.start(operation("start", epoch=epoch, digest=release.digest), release)
        return started.slot

    async def home_of(self, number: int) -> str:
        """Return the slot in which the session of that client lives."""
        addresses = (f"10.77.0.{10 + number}", f"fd77::{10 + number}")
        homes = [
            slot
            for slot, sessions in (await self.folders.live()).items()
            if any(session.remote_address in addresses for session in sessions or ())
        ]
        assert len(homes) == 1, f"client {number} lives in {homes}"
        return homes[0]

    async def clients_gone(self) -> None:
        for client in self.people:
            await client.leave()
        self.people.clear()

    def clear(self) -> None:
        """End what lives in our namespaces and remove them."""
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        for line in listed.splitlines():
            name = line.split()[0]
            if not name.startswith(f"{PREFIX}{self.tag}"):
                continue
            end_inhabitants([name])
            subprocess.run(["ip", "netns", "del", name], check=False)

    def reset(self) -> None:
        """Forget everything but the network, the credentials and the tree."""
        self.record.clear()
        self.people.clear()
        clients = [f"{PREFIX}{self.tag}c{number}" for number in range(1, self.clients + 1)]
        end_inhabitants([self.namespace, *clients])
        nft = ["ip", "netns", "exec", self.namespace, "nft", "flush", "ruleset"]
        subprocess.run(nft, check=True)
        # What the kernel redirects without a table any more is an earlier test's.
        subprocess.run(
            ["ip", "netns", "exec", self.namespace, "conntrack", "-F"], capture_output=True, check=False
        )
        shutil.rmtree(self.root)
        self.root.mkdir()
        self.compose()

    def _note(self, action: str, sentence: str) -> None:
        self.record.append((action, sentence))

    def _ip(self, lines: str, namespace: str | None = None) -> None:
        inside = ["-n", namespace] if namespace else []
        subprocess.run(["ip", *inside, "-batch", "-"], input=lines, text=True, check=True)

    def _credentials(self) -> None:
        self.root.mkdir()
        self._certify("ca", "expiration_days = 9\nca\ncert_signing_key\ncrl_signing_key\n")
        self.certify("gw")
        for user in ("probe", *(f"user{number}" for number in range(1, self.clients + 1))):
            subprocess.run(
                ["ocpasswd", "-c", self.folder / "users", user],
                input="secret\nsecret\n",
                text=True,
                check=True,
                capture_output=True,
            )
        (self.folder / "probe").write_text("secret\n")

    def _certify(self, name: str, said: str, *, by: str | None = None, kind: str = "--ecc") -> None:
        """Make a key and a certificate by certtool's template; without an authority it signs itself."""
        key, template = self.folder / f"{name}.key", self.folder / f"{name}.cfg"
        template.write_text(f'cn = "{name}"\n{said}')
        sign: list[str | Path] = ["--generate-self-signed"]
        if by is not None:
            authority, signer = self.folder / f"{by}.pem", self.folder / f"{by}.key"
            sign = ["--generate-certificate", "--load-ca-certificate", authority, "--load-ca-privkey", signer]
        made: list[str | Path] = [
            "--load-privkey",
            key,
            "--template",
            template,
            "--outfile",
            self.folder / f"{name}.pem",
        ]
        commands: list[list[str | Path]] = [["--generate-privkey", kind, "--outfile", key], [*sign, *made]]
        for command in commands:
            subprocess.run(["certtool", *command], check=True, capture_output=True)
