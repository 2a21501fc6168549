"""A cluster's programs: which, in which versions, and how they are built from their published Go modules.

They stay in `~/.cache/penstock/programs/SET-VERSION`, or below the folder that PENSTOCK_PROGRAMS names, so
that only a machine's first run builds them: `python -m deploy.cluster.programs [SET ...]`.
"""

import argparse
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from deploy.cluster import toolchain
from deploy.cluster.toolchain import Toolchain
from policies.model.errors import BadInput, PenstockError, Unavailable

PLACE = "PENSTOCK_PROGRAMS"
"""The environment variable that says where programs stay instead."""
BUILT_WITHIN = 1500.0
"""Seconds that somebody waits for another process's build; all sets take ten minutes on two idle cores."""
_POLL = 0.2
_AT_ONCE = ("-p", "2")
"""More compilers at once take more memory than a machine with 4 GB has."""
_STRIPPED = "-s -w"

Tell = Callable[[str], None]


class Recipe(Protocol):
    """Where the sources of a set come from."""

    def unpack(self, go: Toolchain, folder: Path, packages: tuple[str, ...], /) -> None:
        """Make the folder a module in which these packages can be built.

        Raises:
            Unavailable: the sources cannot be had.
        """


@dataclass(frozen=True)
class Consumer:
    """The sources come as requirements of a module of ours.

    That is how programs are built whose own module replaces others: `go install` refuses those.
    """

    version: str
    replaced: tuple[str, ...] = ()
    """Modules with the version that takes their place, as `k8s.io/api@v0.36.4`."""
    language: str = "1.26.0"

    def unpack(self, go: Toolchain, folder: Path, packages: tuple[str, ...]) -> None:
        """Write a go.mod that requires the packages as tools; see `Recipe.unpack`."""
        folder.mkdir()
        go.run("mod", "init", "penstock.test/programs", folder=folder)
        changes = [f"-replace={one.partition('@')[0]}={one}" for one in self.replaced]
        go.run("mod", "edit", f"-go={self.language}", *changes, folder=folder)
        # Without -tool, lines of go.sum are missing for what only the commands import.
        go.run("get", "-tool", *(f"{one}@{self.version}" for one in packages), folder=folder)


@dataclass(frozen=True)
class Edit:
    """One change of a module's sources."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Copy:
    """The sources are a copy of the module's own folder, so that its own replacements count.

    Packages are named from that folder, as `./cmd/containerd`.
    """

    module: str
    """With its version, as `github.com/containerd/containerd/v2@v2.4.2`."""
    edits: tuple[Edit, ...] = ()

    def unpack(self, go: Toolchain, folder: Path, _packages: tuple[str, ...]) -> None:
        """Copy the module and change what has to be; see `Recipe.unpack`."""
        said = json.loads(go.run("mod", "download", "-json", self.module, folder=folder.parent))
        shutil.copytree(said["Dir"], folder)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)
        for edit in self.edits:
            self._change(folder / edit.file, edit)

    def _change(self, file: Path, edit: Edit) -> None:
        sources = file.read_text()
        if sources.count(edit.old) != 1:
            raise BadInput(f"{edit.file} of {self.module} has {edit.old!r} not once: mend its edit")
        file.write_text(sources.replace(edit.old, edit.new))


@dataclass(frozen=True)
class Own:
    """The source is one file of ours, which needs nothing but Go itself."""

    file: Path

    def unpack(self, go: Toolchain, folder: Path, packages: tuple[str, ...]) -> None:  # noqa: ARG002
        """Make a module of the file; see `Recipe.unpack`."""
        folder.mkdir()
        go.run("mod", "init", "penstock.test/programs", folder=folder)
        shutil.copy(self.file, folder)


@dataclass(frozen=True)
class Programs:
    """A set of programs of one version, built together and there as a whole or not at all."""

    name: str
    version: str
    packages: Mapping[str, str]
    """Each program's name, with the Go package that it is."""
    recipe: Recipe
    linked: str = _STRIPPED
    """What the linker is told."""
    tags: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: {"CGO_ENABLED": "0"})
    kept: Mapping[str, str] = field(default_factory=dict)
    """Files of the sources that stay beside the programs: each name, with its path there."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def folder(self) -> Path:
        """Where they are, once they are built."""
        return cache() / f"{self.name}-{self.version}"

    @property
    def is_built(self) -> bool:
        """Say whether each of them is there."""
        return all((self.folder / name).is_file() for name in [*self.packages, *self.kept])

    def build(self, go: Toolchain, tell: Tell) -> None:
        """Build them in a folder beside, which then takes its name; call this under `_locked`.

        Raises:
            Unavailable: a command failed; nothing of it is in the way of a later try.
        """
        beside = self.folder.with_name(f".building-{self.folder.name}")
        shutil.rmtree(beside, ignore_errors=True)  # a killed build's
        shutil.rmtree(self.folder, ignore_errors=True)  # of before a program was added
        beside.mkdir(parents=True)
        try:
            tell(f"{self}: its sources are fetched")
            self.recipe.unpack(go, beside / "module", tuple(self.packages.values()))
            for program, package in self.packages.items():
                tell(f"{self}: {program} is built")
                self._build(go, beside, program, package)
            for name, path in self.kept.items():
                shutil.copyfile(beside / "module" / path, beside / "programs" / name)
            (beside / "programs").rename(self.folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _build(self, go: Toolchain, beside: Path, program: str, package: str) -> None:
        asked = ["-trimpath", "-buildvcs=false", f"-ldflags={self.linked}", f"-tags={self.tags}"]
        place = str(beside / "programs" / program)
        go.run(
            *("build", *_AT_ONCE, *asked, "-o", place, package),
            folder=beside / "module",
            environment=self.environment,
        )


_PARTS = """
    api apiextensions-apiserver apimachinery apiserver cli-runtime client-go cloud-provider cluster-bootstrap
    code-generator component-base component-helpers controller-manager cri-api cri-client cri-streaming
    csi-translation-lib dynamic-resource-allocation endpointslice externaljwt kms kube-aggregator
    kube-controller-manager kube-proxy kube-scheduler kubectl kubelet metrics mount-utils
    pod-security-admission sample-apiserver sample-cli-plugin sample-controller streaming
"""
"""Kubernetes' module replaces these by folders beside it; published, each is a module of its own."""


def _kubernetes(version: str, built: str) -> Programs:
    major, minor, patch = version.split(".")
    said = {
        "gitVersion": f"v{version}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "test",
        "buildDate": built,
    }
    # What a server calls itself, and what it calls itself to others.
    places = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    stamps = [f"-X {place}.{name}={value}" for place in places for name, value in said.items()]
    servers = (
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubectl",
        "kubelet",
        "kube-proxy",
    )
    return Programs(
        "kubernetes",
        version,
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in servers},
        Consumer(f"v{version}", tuple(f"k8s.io/{part}@v0.{minor}.{patch}" for part in _PARTS.split())),
        linked=" ".join([_STRIPPED, *stamps]),
    )


_ROLLOUTS = "1.10.1"
_CONTAINERD = "2.4.2"
_PLUGINS = "github.com/containernetworking/plugins/plugins"
_ARGO_KINDS = ("rollout", "experiment", "analysis-run", "analysis-template", "cluster-analysis-template")

SETS = {
    one.name: one
    for one in (
        _kubernetes("1.36.4", "2026-11-01T00:00:00Z"),
        Programs("etcd", "3.6.16", {"etcd": "go.etcd.io/etcd/server/v3"}, Consumer("v3.6.16")),
        Programs("kwok", "0.8.0", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}, Consumer("v0.8.0")),
        Programs("helm", "4.3.1", {"helm": "helm.sh/helm/v4/cmd/helm"}, Consumer("v4.3.1")),
        Programs(
            "argo-rollouts",
            _ROLLOUTS,
            {"rollouts-controller": "./cmd/rollouts-controller"},
            Copy(
                f"github.com/argoproj/argo-rollouts@v{_ROLLOUTS}",
                # It would be heard on every address of this machine.
                (Edit("controller/controller.go", '"0.0.0.0:%d"', '"127.0.0.1:%d"'),),
            ),
            kept={f"{kind}-crd.yaml": f"manifests/crds/{kind}-crd.yaml" for kind in _ARGO_KINDS},
        ),
        Programs(
            "containerd",
            _CONTAINERD,
            {name: f"./cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")},
            Copy(f"github.com/containerd/containerd/v2@v{_CONTAINERD}"),
            linked=f"{_STRIPPED} -X github.com/containerd/containerd/v2/version.Version=v{_CONTAINERD}",
            tags="no_btrfs no_devmapper no_zfs",
        ),
        Programs(
            "registry",
            "3.1.2",
            {"registry": "github.com/distribution/distribution/v3/cmd/registry"},
            Consumer("v3.1.2"),
        ),
        Programs(
            "network-plugins",
            "1.9.1",
            {
                "bridge": f"{_PLUGINS}/main/bridge",
                "loopback": f"{_PLUGINS}/main/loopback",
                "host-local": f"{_PLUGINS}/ipam/host-local",
            },
            Consumer("v1.9.1"),
        ),
        Programs("pause", "1", {"pause": "."}, Own(Path(__file__).with_name("pause.go"))),
    )
}
"""Every set by its name. A program belongs to one set."""

CONTROL_PLANE = ("kubernetes", "etcd", "kwok")
"""The sets that a control plane with simulated nodes is of."""
NODES = ("kubernetes", "etcd", "containerd", "registry", "network-plugins", "pause")
"""The sets that a control plane with real nodes is of."""


def cache() -> Path:
    """Return the folder that all sets stay in."""
    named = os.environ.get(PLACE)
    if named:
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "penstock" / "programs"


def chosen(*names: str) -> list[Programs]:
    """Return the sets of these names; with none, all.

    Raises:
        BadInput: there is no set of that name.
    """
    for name in names:
        if name not in SETS:
            raise BadInput(f"there are no programs {name!r}; there are: {', '.join(SETS)}")
    return [SETS[name] for name in names or SETS]


def why_not_here(*names: str) -> str | None:
    """Return what is missing of these sets and how it comes; None when nothing is."""
    missing = [one for one in chosen(*names) if not one.is_built]
    if not missing:
        return None
    go = "" if toolchain.present(cache()) else f", but there is no Go here: {toolchain.HOW_IT_COMES}"
    command = f".venv/bin/python -m deploy.cluster.programs {' '.join(one.name for one in missing)}"
    return f"this machine has not built {_listed(missing)}; `{command}` does so once, in minutes{go}"


def ensure(*names: str, tell: Tell, idle: bool = False) -> None:
    """Return when these sets are built, by this call or by another process's; with no name, all.

    What is idle gets only the processor time that nobody else wants.

    Raises:
        BadInput: there is no set of that name.
        Unavailable: one cannot be built; the sentence says why, and what to do.
    """
    for one in chosen(*names):
        if not one.is_built:
            _ensure(one, tell, idle)


def program(name: str) -> Path:
    """Return where a program is.

    Raises:
        BadInput: no set has such a program.
        Unavailable: its set is not built here; the sentence says how it comes.
    """
    for one in SETS.values():
        if name in one.packages:
            if (why := why_not_here(one.name)) is not None:
                raise Unavailable(why)
            return one.folder / name
    raise BadInput(f"no set has a program {name!r}; sets are declared in deploy/cluster/programs.py")


def _ensure(one: Programs, tell: Tell, idle: bool) -> None:
    with _locked(one, tell):
        if one.is_built:
            return
        begun = time.monotonic()
        try:
            one.build(toolchain.ensure(cache(), tell, idle=idle), tell)
        except Unavailable as why:
            again = f".venv/bin/python -m deploy.cluster.programs {one.name}"
            raise Unavailable(
                f"{one} cannot be built: {why}; where a proxy for Go modules is reachable, try `{again}`"
            ) from why
        tell(f"{one}: built in {time.monotonic() - begun:.0f} s, in {one.folder}")


@contextmanager
def _locked(one: Programs, tell: Tell) -> Iterator[None]:
    """Have the set for the length of the block: the kernel gives it free when a build is killed."""
    cache().mkdir(parents=True, exist_ok=True)
    with one.folder.with_name(f".{one.folder.name}.lock").open("a") as file:
        end, told = time.monotonic() + BUILT_WITHIN, False
        while not _taken(file.fileno()):
            if not told:
                tell(f"{one}: another process builds it; that is waited for")
                told = True
            if time.monotonic() > end:
                raise Unavailable(f"{one} is still being built by another process after {BUILT_WITHIN:g} s")
            time.sleep(_POLL)
        yield


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _listed(sets: list[Programs]) -> str:
    return " and ".join(filter(None, [", ".join(map(str, sets[:-1])), str(sets[-1])]))


def main(arguments: list[str] | None = None) -> int:
    """Build sets and print each step with the seconds since the start; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.cluster.programs", description=__doc__)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"all, or some of: {', '.join(SETS)}")
    parser.add_argument("--idle", action="store_true", help="take only time that nobody else wants")
    asked = parser.parse_args(arguments)
    begun = time.monotonic()

    def tell(sentence: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {sentence}", flush=True)

    try:
        ensure(*asked.sets, tell=tell, idle=asked.idle)
    except PenstockError as error:
        print(f"programs: {error}", file=sys.stderr)
        return error.exit_code
    tell(f"{_listed(chosen(*asked.sets))}: all here, in {cache()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
