"""Ask DNS servers for names as a client's resolver does, in the network in which this program is started.

`python -m activities.drivers.resolving SERVER... -- NAME...` asks every server for every name, all at the
same time, and prints a line for each answer; `answer_in` reads one. The libraries are loaded by the program
alone: agents read its lines and never speak DNS.
"""

import asyncio
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address

from activities.drivers.programs import run
from policies.model.errors import PenstockError

WITHIN = timedelta(seconds=3)
"""How long a server has for all that it is asked, a question that was lost and is asked again included."""
STARTS_WITHIN = timedelta(seconds=5)

Address = IPv4Address | IPv6Address
Answer = tuple[Address, ...] | None
"""All addresses that a name has by the server, none where it has none; None without an answer of any use."""
Answers = dict[tuple[str, str], Answer]
"""What was answered, by server and name."""

_SILENT = "-"
_LINE = re.compile(r"penstock: answer (?P<server>\S+) (?P<name>\S+)(?: (?P<said>\S+))?")


def questions(servers: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return what the program is told, so that every server is asked for every name."""
    return [*servers, "--", *names]


def program() -> list[str]:
    """Return the command line of the program, without its questions."""
    return [sys.executable, "-I", "-m", __name__]


def answer_in(line: str) -> Answers:
    """Return the answer that a line of the program tells, nothing where it is none."""
    if (found := _LINE.fullmatch(line.strip())) is None:
        return {}
    asked, said = (found["server"], found["name"]), found["said"] or ""
    if said == _SILENT:
        return {asked: None}
    with suppress(ValueError):  # a line that somebody else has written
        return {asked: tuple(ip_address(one) for one in said.split(",") if one)}
    return {}


def answer_line(server: str, name: str, answer: Answer) -> str:
    """Return the line that tells an answer."""
    said = _SILENT if answer is None else ",".join(map(str, answer))
    return f"penstock: answer {server} {name} {said}"


async def ask_here(servers: Sequence[str], names: Sequence[str]) -> Answers:
    """Ask in this process' own network; empty where the program cannot be run."""
    found: Answers = {}
    if servers and names:
        try:
            ended = await run([*program(), *questions(servers, names)], within=WITHIN + STARTS_WITHIN)
        except PenstockError:
            return {}
        for line in ended.out.splitlines():
            found |= answer_in(line)
    return found


async def _main(arguments: Sequence[str]) -> None:
    split = arguments.index("--")
    pairs = [(server, name) for server in arguments[:split] for name in arguments[split + 1 :]]
    answers = await asyncio.gather(*[_addresses(*pair) for pair in pairs])
    for (server, name), answer in zip(pairs, answers, strict=True):
        print(answer_line(server, name, answer))  # noqa: T201


async def _addresses(server: str, name: str) -> Answer:
    """Return the addresses of both kinds; clients wait for both answers, so one alone is none."""
    four, six = await asyncio.gather(_of_kind(server, name, "A"), _of_kind(server, name, "AAAA"))
    return None if four is None or six is None else (*four, *six)


async def _of_kind(server: str, name: str, kind: str) -> Answer:
    import dns.asyncresolver  # noqa: PLC0415 - only what asks loads it
    import dns.exception  # noqa: PLC0415
    import dns.resolver  # noqa: PLC0415

    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = [server]
    resolver.timeout, resolver.lifetime = 1.0, WITHIN.total_seconds()
    try:
        found = await resolver.resolve(f"{name}.", kind, raise_on_no_answer=False, search=False)
    except dns.resolver.NXDOMAIN:
        return ()
    except (dns.exception.DNSException, OSError):  # silence, a refusal, or a failure of the server's own
        return None
    return tuple(ip_address(record.to_text()) for record in found.rrset or ())


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
