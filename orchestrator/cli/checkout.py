"""The checkout that files lie in: its commit, what that contains, and a branch of its own for a patch.

Git is asked, and nothing that anybody works on is touched: neither working tree nor index nor a branch that
is there. Nothing is fetched and nothing is pushed.
"""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from orchestrator.cli.client import Problem
from orchestrator.exit_code import ExitCode

SECONDS = 60
"""How long Git may take for one answer."""

_QUIET = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "commit.gpgSign=false")
"""What is asked of a checkout runs no program of its own."""

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class _Answer(NamedTuple):
    """What Git says, line ends as they are."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Checkout:
    """A checkout of Git, at one commit."""

    root: Path
    commit: str
    author: str
    subject: str

    @classmethod
    def of(cls, folder: Path) -> "Checkout | None":
        """Return the checkout that a folder is in; None for a plain folder, or one without any commit.

        Raises:
            Problem: There is a checkout, and Git does not say which.
        """
        if not any((one / ".git").exists() for one in (folder.resolve(), *folder.resolve().parents)):
            return None
        if shutil.which("git") is None:
            raise _problem(f"{folder} is a checkout, and there is no program git to ask; install it")
        root = _git(folder, "rev-parse", "--show-toplevel")
        commit = _answer(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if commit.returncode:
            return None
        said = _git(folder, "show", "--no-patch", "--no-show-signature", "--format=%H%n%an <%ae>%n%s", "HEAD")
        name, author, subject = [*said.splitlines(), "", "", ""][:3]
        if not _COMMIT.fullmatch(name):
            raise _problem(f"git names no commit of {folder}, but {name[:60]!r}")
        return cls(Path(root), name, author[:200], subject[:300])

    def contains(self, commit: str) -> bool:
        """Return whether this commit comes after that one, or is it; never where nobody can tell."""
        if not _COMMIT.fullmatch(commit):
            return False
        return _answer(self.root, "merge-base", "--is-ancestor", commit, self.commit).returncode == 0

    def is_committed(self, path: Path) -> bool:
        """Return whether the file is as it is in the commit."""
        found = _answer(self.root, "status", "--porcelain", "--ignored", "--", os.fspath(path.resolve()))
        return found.returncode == 0 and not found.stdout.strip()

    def name_of(self, path: Path) -> str:
        """Return how the checkout calls a file."""
        try:
            return path.resolve().relative_to(self.root.resolve()).as_posix()
        except ValueError as error:
            raise _problem(
                f"{path} leads out of the checkout {self.root}; have the file itself there"
            ) from error

    def text_of(self, path: Path) -> str:
        """Return what the commit has in a file; Problem when it has none."""
        found = _answer(self.root, "show", f"{self.commit}:{self.name_of(path)}")
        if found.returncode:
            raise _problem(f"{path} is in no commit yet; commit it first")
        return found.stdout

    def commit_beside(self, branch: str, path: Path, text: str, message: str) -> bool:
        """Have a branch with one commit more, in which the file says this; return whether that is new.

        Raises:
            Problem: There is another branch of that name, or Git does not know who commits.
        """
        at = f"refs/heads/{branch}"
        with tempfile.TemporaryDirectory(prefix="penstock-index-") as folder:
            index = {"GIT_INDEX_FILE": os.fspath(Path(folder) / "index")}
            _git(self.root, "read-tree", self.commit, **index)
            blob = _git(self.root, "hash-object", "-w", "--no-filters", "--stdin", given=text)
            mode = _git(self.root, "ls-tree", self.commit, "--", self.name_of(path)).split(" ", 1)[0]
            _git(self.root, "update-index", "--cacheinfo", f"{mode},{blob},{self.name_of(path)}", **index)
            tree = _git(self.root, "write-tree", **index)
        there = _answer(self.root, "rev-parse", "--verify", "--quiet", f"{at}^{{tree}}")
        if there.returncode == 0:
            if there.stdout.strip() == tree:
                return False
            raise Problem(
                "Conflict",
                f"there is a branch {branch} already, which says something else; delete it, or take it",
                exit_code=ExitCode.CONFLICT,
            )
        made = _git(self.root, "commit-tree", tree, "-p", self.commit, "-F", "-", given=message)
        _git(self.root, "update-ref", "-m", "penstock diff --commit", at, made, "0" * len(made))
        return True


def _git(folder: Path, *words: str, given: str | None = None, **environment: str) -> str:
    """Return what Git answers, without the last newline; Problem when it says no."""
    found = _answer(folder, *words, given=given, **environment)
    if found.returncode:
        said = " ".join(found.stderr.split()) or f"it ended with {found.returncode}"
        raise _problem(f"git {words[0]} in {folder}: {said[:300]}")
    return found.stdout.rstrip("\n")


def _answer(folder: Path, *words: str, given: str | None = None, **environment: str) -> _Answer:
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8"}
    try:
        ended = subprocess.run(
            ["git", "-C", os.fspath(folder), *_QUIET, *words],
            input=given.encode() if given is not None else b"",
            env=os.environ | quiet | environment,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _problem(f"git {words[0]} in {folder} does not answer: {error}") from error
    return _Answer(
        ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace")
    )


def _problem(sentence: str) -> Problem:
    return Problem("BadInput", sentence, exit_code=ExitCode.USAGE)
