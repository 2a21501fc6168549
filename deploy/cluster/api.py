"""A plain client of a cluster's API for who sets tests up: bounded, never repeating, raw JSON in and out."""

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import yaml

from deploy.lab import namespaces
from policies.model.errors import Unavailable

Json = dict[str, Any]
MERGE, APPLY, JSON_PATCH = (
    "application/merge-patch+json",
    "application/apply-patch+yaml",
    "application/json-patch+json",
)
ANSWERS_WITHIN = 30.0
"""Seconds; a server under pressure lets requests wait for 15 before it refuses them."""
AT_ONCE = 16
_PAGE = 500
_POLL = 0.05
_TEXT = 500


class Answered(Exception):
    """The API refused or failed; `status` is of HTTP, `said` its own JSON or text."""

    def __init__(self, status: int, said: Any, asked: str) -> None:
        self.status, self.said = status, said
        words = said.get("message", said) if isinstance(said, dict) else said
        super().__init__(f"{asked} was answered {status}: {str(words)[:_TEXT]}")


class Api:
    """One person's connections to one API server."""

    def __init__(
        self,
        server: str,
        authority: Path,
        token: str,
        *,
        agent: str = "penstock-test-admin",
        namespace: str | None = None,
    ) -> None:
        """Take the server's URL, who vouches for it, and the namespace that it is reached from, or ours."""
        self.server = server
        self._namespace = namespace
        self._kinds: dict[tuple[str, str], tuple[str, bool]] = {}
        self._client = httpx.Client(
            base_url=server,
            headers={"Authorization": f"Bearer {token}", "User-Agent": agent},
            verify=ssl.create_default_context(cafile=str(authority)),
            timeout=ANSWERS_WITHIN,
            limits=httpx.Limits(max_connections=AT_ONCE),
            trust_env=False,
        )

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def ask(
        self, method: str, path: str, body: Any = None, *, content: str = "application/json", **query: Any
    ) -> Any:
        """Ask once and return the answer as JSON, or as text where it is none.

        Raises:
            Answered: the status is not one of success.
            Unavailable: the server cannot be reached, or does not answer in time.
        """
        try:
            with self._there():
                answer = self._client.request(
                    method, path, json=body, params=query, headers={"Content-Type": content}
                )
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.server} does not answer {method} {path}: {error!r}") from error
        read = answer.headers.get("Content-Type", "").startswith("application/json")
        said = answer.json() if read else answer.text
        if not answer.is_success:
            raise Answered(answer.status_code, said, f"{method} {path}")
        return said

    def get(self, path: str, **query: Any) -> Json:
        """Return one object or one page."""
        found: Json = self.ask("GET", path, **query)
        return found

    def every(self, path: str, **query: Any) -> list[Json]:
        """Return all objects of a list, page by page."""
        found: list[Json] = []
        page = self.get(path, limit=_PAGE, **query)
        while True:
            found += page["items"]
            if not (more := page["metadata"].get("continue")):
                return found
            page = self.get(path, limit=_PAGE, **{**query, "continue": more})

    def find(self, path: str) -> Json | None:
        """Return an object; None when there is none."""
        try:
            return self.get(path)
        except Answered as answer:
            if answer.status != httpx.codes.NOT_FOUND:
                raise
            return None

    def post(self, path: str, body: Json) -> Json:
        """Create an object."""
        made: Json = self.ask("POST", path, body)
        return made

    def merge(self, path: str, body: Json) -> Json:
        """Change an object by a JSON merge patch."""
        changed: Json = self.ask("PATCH", path, body, content=MERGE)
        return changed

    def delete(self, path: str, **options: Any) -> None:
        """Delete an object; one that is not there is fine."""
        try:
            self.ask("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", **options})
        except Answered as answer:
            if answer.status != httpx.codes.NOT_FOUND:
                raise

    def apply(self, manifest: Json, *, manager: str = "penstock-test-admin") -> Json:
        """Have an object as this manifest says, whoever else has written it."""
        made: Json = self.ask(
            "PATCH", self.path_of(manifest), manifest, content=APPLY, fieldManager=manager, force="true"
        )
        return made

    def apply_all(self, manifests: str) -> None:
        """Apply every document of a YAML text, in order."""
        for manifest in yaml.safe_load_all(manifests):
            if manifest is not None:
                self.apply(manifest)

    def path_of(self, manifest: Json) -> str:
        """Return where an object of this kind and name is, in its namespace or `default`."""
        version, kind, about = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
        plural, namespaced = self._kind(version, kind)
        within = f"/namespaces/{about.get('namespace', 'default')}" if namespaced else ""
        return f"{self._root(version)}{within}/{plural}/{about['name']}"

    def token(self, namespace: str, account: str, *, seconds: int = 3600) -> str:
        """Return a token of a service account."""
        spec = {"expirationSeconds": seconds}
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        found: str = self.post(path, asked)["status"]["token"]
        return found

    def until(
        self, path: str, holds: Callable[[Json | None], object], *, within: float = 30.0, poll: float = _POLL
    ) -> Json | None:
        """Look at an object until this holds of it; None stands for none. Return what was seen last.

        Raises:
            Unavailable: it does not hold in that time; what was seen last is quoted.
        """
        end = time.monotonic() + within
        while True:
            seen = self.find(path)
            if holds(seen):
                return seen
            if time.monotonic() > end:
                raise Unavailable(f"{path} is not as waited for after {within:g} s: {str(seen)[:_TEXT]}")
            time.sleep(poll)

    def each(self, work: Callable[[Any], Any], items: Iterator[Any] | list[Any]) -> list[Any]:
        """Do this for every item, several at once."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(work, items))

    def _there(self) -> AbstractContextManager[None]:
        return namespaces.inside(self._namespace) if self._namespace else nullcontext()

    def _kind(self, version: str, kind: str) -> tuple[str, bool]:
        if (version, kind) not in self._kinds:
            for one in self.get(self._root(version))["resources"]:
                if "/" not in one["name"]:
                    self._kinds[version, one["kind"]] = (one["name"], one["namespaced"])
        return self._kinds[version, kind]

    def _root(self, version: str) -> str:
        return f"/apis/{version}" if "/" in version else f"/api/{version}"


def make_nodes(
    api: Api, names: list[str], *, labels: Mapping[str, str] | None = None, within: float = 60.0
) -> None:
    """Have nodes of these names, and return when all are Ready and nothing keeps pods away from them.

    They are there before anybody's labels are: each has those given, and its host name's.

    Raises:
        Unavailable: they are not ready in that time.
    """
    room = {"cpu": "64", "memory": "64Gi", "pods": "110"}

    def make(name: str) -> None:
        about = {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}}
        status = {"allocatable": room, "capacity": room, "nodeInfo": {"bootID": str(uuid4())}}
        api.post("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": about, "status": status})

    api.each(make, names)
    wanted, end = set(names), time.monotonic() + within
    while unready := wanted - {
        node["metadata"]["name"] for node in api.every("/api/v1/nodes") if is_open(node)
    }:
        if time.monotonic() > end:
            raise Unavailable(f"{len(unready)} of {len(names)} nodes are not ready after {within:g} s")
        time.sleep(_POLL)


def remove_nodes(api: Api, names: list[str]) -> None:
    """Delete these nodes; the pods on them are collected by the controllers some time later."""
    api.each(lambda name: api.delete(f"/api/v1/nodes/{name}"), names)


def reboot_node(api: Api, name: str) -> str:
    """Have a node say that it was started anew; return its new boot id."""
    boot = str(uuid4())
    api.merge(f"/api/v1/nodes/{name}/status", {"status": {"nodeInfo": {"bootID": boot}}})
    return boot


def is_open(node: Json) -> bool:
    """Say whether a node is Ready and takes pods."""
    conditions = {one["type"]: one["status"] for one in node.get("status", {}).get("conditions", [])}
    return conditions.get("Ready") == "True" and not node["spec"].get("taints")
