"""Which slow tests one run of continuous integration begins with.

A run has time for about a third of them. Each commit's hash puts their files into another order, and the
functions of a file into another rotation, so that every slow test runs every few landings.
"""

from collections.abc import Iterable
from hashlib import sha256

STORIES = ("tests/hosts/test_install.py", "tests/hosts/test_company.py")
"""Files whose functions go on where the one before has left the hosts: they are never rotated."""


def ordered(tests: Iterable[str], commit: str) -> list[str]:
    """Return the node ids of these tests in the order in which a run of this commit starts them.

    The cases of one test function stay together and in order, and so do the functions of one file, but for
    where the file begins.
    """
    files: dict[str, dict[str, list[str]]] = {}
    for test in tests:
        file, _, name = test.partition("::")
        files.setdefault(file, {}).setdefault(name.partition("[")[0], []).append(test)
    order: list[str] = []
    for file in sorted(files, key=lambda file: _number(commit, file)):
        functions = list(files[file].values())
        first = 0 if file in STORIES else _number(commit, "first of", file) % len(functions)
        order += [test for cases in functions[first:] + functions[:first] for test in cases]
    return order


def _number(*words: str) -> int:
    return int.from_bytes(sha256("\0".join(words).encode()).digest())
