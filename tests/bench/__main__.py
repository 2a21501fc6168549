"""Measure: `python -m tests.bench [NAME] [--json FILE] [ARGUMENTS]`; with no name, everything.

A measurement is a module `tests/bench/bench_NAME.py` with a function
`main(json_path: Path | None, arguments: list[str]) -> int`: it prints a table, writes the same
figures to `json_path` when that is given, and returns 0 when they could be taken.
"""

import importlib
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_USAGE_ERROR = 2


def names() -> list[str]:
    """Return the names of all measurements."""
    return sorted(path.stem.removeprefix("bench_") for path in _HERE.glob("bench_*.py"))


def main(arguments: list[str]) -> int:
    """Run one measurement, or all in order; return the first exit code that is not 0."""
    if arguments[:1] in (["--help"], ["-h"]):
        print(_usage())
        return 0
    json_path, rest = _split(arguments)
    named = rest[0] if rest else None
    if named is not None and named not in names():
        print(f"bench: there is no {named!r}\n{_usage()}", file=sys.stderr)
        return _USAGE_ERROR
    if named is None and json_path is not None:
        print("bench: --json needs the name of one measurement", file=sys.stderr)
        return _USAGE_ERROR
    codes = [_run(name, json_path, rest[1:]) for name in ([named] if named else names())]
    return next((code for code in codes if code), 0)


def _usage() -> str:
    return (
        "usage: ./run bench [NAME] [--json FILE] [ARGUMENTS]; with no NAME all are run, which takes long\n"
        f"NAME is one of: {', '.join(names()) or 'none yet'}; ./run bench NAME --help says more"
    )


def _split(arguments: list[str]) -> tuple[Path | None, list[str]]:
    if "--json" not in arguments:
        return None, arguments
    place = arguments.index("--json")
    if place + 1 == len(arguments):
        raise SystemExit("bench: --json needs a file")
    return Path(arguments[place + 1]), [*arguments[:place], *arguments[place + 2 :]]


def _run(name: str, json_path: Path | None, arguments: list[str]) -> int:
    code: int = importlib.import_module(f"tests.bench.bench_{name}").main(json_path, arguments)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
