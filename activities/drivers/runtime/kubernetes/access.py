"""How the API server is reached: by a kubeconfig, or as a pod of the cluster; what the files say now counts.

The client is made anew when one of its files has changed: tokens of service accounts live for an hour, and
the package itself reads a kubeconfig's tokenFile only once. Keys that stand in a kubeconfig are handed to
the TLS library from memory, so that none is left on a disk.
"""

import base64
import binascii
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import yaml
from kubernetes.client import ApiClient, Configuration
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.incluster_config import SERVICE_CERT_FILENAME, InClusterConfigLoader
from kubernetes.config.kube_config import load_kube_config_from_dict

from activities.drivers.rights import read_own
from policies.model.errors import BadInput
from policies.model.value import sentence

SERVICE_ACCOUNT = Path(SERVICE_CERT_FILENAME).parent
"""Where a pod finds its token and who vouches for the API server."""

AT_ONCE = 64
"""Connections that are kept: as many calls as a batch makes at once."""

_FILES = ("tokenFile", "client-certificate", "client-key", "certificate-authority")
"""Keys of a kubeconfig that name files, which its folder is in front of."""
_CONTENTS = ("client-certificate-data", "client-key-data", "certificate-authority-data")
_TOKEN = "BearerToken"  # noqa: S105 - its name in the package


WRONG = (ConfigException, OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError)
"""What reading a kubeconfig raises that is not as the package expects it."""


class Access:
    """A client of one cluster's API server; any thread may ask for it."""

    def __init__(self, kubeconfig: Path | None, agent: str, *, account: Path = SERVICE_ACCOUNT) -> None:
        """Use this kubeconfig, or, where there is none, the `account` of this pod; be called `agent`."""
        self._kubeconfig = kubeconfig
        self._agent = agent
        self._account = account
        self._lock = Lock()
        self._made: tuple[ApiClient, tuple[object, ...]] | None = None
        self._watched: tuple[Path, ...] = ()
        self._held: list[int] = []

    @property
    def place(self) -> str:
        """Where whoever mends it has to look."""
        return str(self._kubeconfig or self._account / "token")

    def client(self) -> ApiClient:
        """Return the client, with what lies in its files now.

        Raises:
            BadInput: A file is missing, not as it must be, or may be written by others.
        """
        with self._lock:
            if self._made is None or self._made[1] != self._marks():
                client = self._new()
                self._made = client, self._marks()
            return self._made[0]

    def forget(self) -> None:
        """Have the next call read all files again: the API server did not know whom they name."""
        with self._lock:
            self._made = None

    def _marks(self) -> tuple[object, ...]:
        return tuple(_mark(path) for path in self._watched)

    def _new(self) -> ApiClient:
        configuration = Configuration()
        try:
            if self._kubeconfig is None:
                self._from_account(configuration)
            else:
                self._from_kubeconfig(configuration, self._kubeconfig)
        except WRONG as error:
            said = sentence(str(error), 300) or type(error).__name__
            raise BadInput(f"{self.place} does not say how the API server is reached: {said}") from error
        self._require_safe(configuration)
        # What urllib3 takes for "not once more, whatever happens", and the package hands on as it is.
        configuration.retries = False
        configuration.connection_pool_maxsize = AT_ONCE
        client = ApiClient(configuration)
        client.user_agent = self._agent
        return client

    def _require_safe(self, configuration: Configuration) -> None:
        if not configuration.host.startswith("https://"):
            raise BadInput(f"{self.place} names {configuration.host}: orders go only to an https:// server")
        if not configuration.verify_ssl:
            raise BadInput(
                f"{self.place} says insecure-skip-tls-verify: take it out, and name a certificate-authority"
            )

    def _from_account(self, configuration: Configuration) -> None:
        token, authority = self._account / "token", self._account / "ca.crt"
        self._watched = (token, authority)
        loader: Any = InClusterConfigLoader  # has no types of its own
        loader(str(token), str(authority), try_refresh_token=False, environ=dict(os.environ)).load_and_set(
            configuration
        )
        configuration.proxy = None
        _strip(configuration)

    def _from_kubeconfig(self, configuration: Configuration, path: Path) -> None:
        content: Any = yaml.safe_load(read_own(path, secret=True))
        if not isinstance(content, dict):
            raise ValueError(f"{path} holds no mapping")  # noqa: TRY004 - of the file, as all that is wrong
        named = list(_entries(content))
        before, self._held = self._held, []
        try:
            self._read(content, named, path, configuration)
        except BaseException:
            before, self._held = self._held, before
            raise
        finally:
            for descriptor in before:  # what connects with them at this moment fails, and is tried again
                os.close(descriptor)

    def _read(
        self,
        content: dict[str, Any],
        named: Sequence[dict[str, Any]],
        path: Path,
        configuration: Configuration,
    ) -> None:
        """Take what the kubeconfig says; what it holds itself is kept in memory."""
        for entry in named:
            self._settle(entry, path.resolve().parent)
        files = (Path(entry[key]) for entry in named for key in _FILES if entry.get(key))
        self._watched = (path, *(one for one in files if not one.is_relative_to("/proc/self")))
        configuration.proxy = None  # the environment's is not meant; the kubeconfig's own counts
        load: Any = load_kube_config_from_dict  # has no types of its own
        load(content, client_configuration=configuration, persist_config=False)
        if not any({"exec", "auth-provider"} & entry.keys() for entry in named):
            _strip(configuration)

    def _settle(self, entry: dict[str, Any], folder: Path) -> None:
        """Have the entry name files by their whole path, and none that would have to be written."""
        for key in _FILES:
            if entry.get(key):
                entry[key] = str(folder / entry[key])
        for key in _CONTENTS:
            if entry.get(key):
                entry[key.removesuffix("-data")] = self._in_memory(key, entry.pop(key))

    def _in_memory(self, name: str, content: str) -> str:
        try:
            plain = base64.b64decode(content, validate=True)
        except binascii.Error as error:
            raise ValueError(f"{name} is not base64") from error
        descriptor = os.memfd_create(name)
        self._held.append(descriptor)
        os.write(descriptor, plain)
        return f"/proc/self/fd/{descriptor}"


def _strip(configuration: Configuration) -> None:
    """Have the token be what was read, without the end of its line; the file is watched by us."""
    configuration.refresh_api_key_hook = None
    if _TOKEN in configuration.api_key:
        token = configuration.api_key[_TOKEN].strip()
        if re.search(r"[^\x21-\x7e ]", token):
            raise ValueError("the token holds more than one line")
        configuration.api_key[_TOKEN] = token


def _entries(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what a kubeconfig says of its clusters and users."""
    for group, inner in (("clusters", "cluster"), ("users", "user")):
        for one in content.get(group) or ():
            if isinstance(one, dict) and isinstance(one.get(inner), dict):
                yield one[inner]


def _mark(path: Path) -> object:
    """Return what changes with the file's content; a projected one is a link to another file each time."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
