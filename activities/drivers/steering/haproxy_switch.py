"""Who gets new sessions, as a HAProxy keeps it: a map, and a lease that ends by itself.

The map is replaced in one step (`prepare map`, `add map`, `commit map`). The lease is an entry of a stick
table, which HAProxy drops when its time is over, by a clock that nobody sets; looking it up renews nothing.
Every table has one time for all its entries, so the entry says how much of that is left over when its own
lease ends (decision 0043).
"""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

from activities.drivers.steering.haproxy_socket import HaproxySocket
from activities.drivers.steering.switch import EVERYBODY, Switch
from policies.model.errors import Conflict
from policies.model.fleet import LONGEST_LEASE

LEASES = "lease"
"""The stick table of leases, and the only key in it."""
TRIAL = "trial"
_EXPIRES = re.compile(rf"key={TRIAL} .*\bexp=(\d+) .*\bgpt0=(\d+)")
_ENTRY = re.compile(r"^0x[0-9a-f]+ (\S+) (.*)$", re.MULTILINE)
_SUMMARY = r"\({}\) .*\b(curr_ver=\d+) .*\b(entry_cnt=\d+)"
"""A map's line in the list of all maps: which version counts, and how many entries all its versions have."""
_LONGEST = int(LONGEST_LEASE.total_seconds() * 1000)
"""Milliseconds for which the table keeps an entry; a lease is as long or shorter."""
_PAYLOAD_BYTES = 12_000
"""Of a payload, which has to fit with its command into HAProxy's buffer (`tune.bufsize`, 16 KiB)."""


def map_of(switch: Switch) -> str:
    """Return the map's entries, a line each; its keys are those that `rules` ask for."""
    lines = [f"steer {switch.steer}"] if switch.steer else []
    if switch.trial:
        lines += [f"trial {switch.trial}", f"share {switch.share}", f"seed {switch.seed}"]
    if switch.generation:
        lines.append(f"by {switch.generation}")
    return "".join(f"{line}\n" for line in lines)


def rules(entries: Path, ask: str, who: str = "src") -> Iterator[str]:
    """Yield what sets `txn.slot` for each user; `ask` begins every line, and `who` decides on shares."""
    found = f"map({entries})"
    yield f"{ask} set-var(txn.slot) str(steer),{found}"
    yield f"{ask} set-var(txn.left) str({TRIAL}),table_expire({LEASES},0)"
    yield f"{ask} set-var(txn.over) str({TRIAL}),table_gpt0({LEASES})"
    yield f"{ask} set-var(txn.seed) str(seed),{found}"
    yield f"{ask} set-var(txn.share) str(share),{found}"
    yield f"{ask} set-var(txn.lot) {who},concat(-,txn.seed),xxh32(0),mod({EVERYBODY})"
    among = "{ var(txn.left),sub(txn.over) gt 0 } { var(txn.lot),sub(txn.share) lt 0 }"
    yield f"{ask} set-var(txn.slot) str(trial),{found} if {among}"


def leases() -> Iterator[str]:
    """Yield the section that keeps the lease."""
    yield f"backend {LEASES}"
    yield f"    stick-table type string len 16 size 16 expire {_LONGEST}ms store gpt0"


async def read_switch(haproxy: HaproxySocket, entries: Path) -> Switch:
    """Return what it says now; Unavailable when it does not answer, or has no such map or table."""
    said = await haproxy.ask(f"show table {LEASES};show map {entries}")
    found = _entries_of(said)
    lease = _EXPIRES.search(said)
    left = int(lease[1]) - int(lease[2]) if lease else 0
    if left <= 0 or "trial" not in found:
        return Switch(steer=found.get("steer"), generation=found.get("by", ""))
    return Switch(
        steer=found.get("steer"),
        trial=found["trial"],
        expires_in=timedelta(milliseconds=left),
        share=int(found.get("share", EVERYBODY)),
        seed=int(found.get("seed", 0)),
        generation=found.get("by", ""),
    )


async def read_map(haproxy: HaproxySocket, entries: Path) -> dict[str, str]:
    """Return the entries of a map, as it has them in its memory; Unavailable when it does not answer."""
    return _entries_of(await haproxy.ask(f"show map {entries}"))


async def summary_of_map(haproxy: HaproxySocket, entries: Path) -> tuple[str, str] | None:
    """Return what it says of a map without its entries; None where it has no such map.

    Two that are equal are of equal maps, unless somebody else wrote another value of the same key, or took
    one key for another.
    """
    found = re.search(_SUMMARY.format(re.escape(str(entries))), await haproxy.ask("show map"))
    return None if found is None else (found[1], found[2])


def _entries_of(said: str) -> dict[str, str]:
    return {line[1]: line[2] for line in _ENTRY.finditer(said)}


async def write_switch(haproxy: HaproxySocket, entries: Path, wanted: Switch) -> None:
    """Have it say this; whoever dies between two steps leaves the permanent slot or one that was wanted.

    Raises:
        Unavailable: it does not answer, or refuses.
    """
    await replace_map(haproxy, entries, map_of(wanted))
    if wanted.trial is None:
        await haproxy.order(f"clear table {LEASES} key {TRIAL}")
    elif wanted.lease is not None:
        over = _LONGEST - int(wanted.lease.total_seconds() * 1000)
        await haproxy.order(f"set table {LEASES} key {TRIAL} data.gpt0 {over}")


async def replace_map(haproxy: HaproxySocket, entries: Path, lines: str) -> None:
    """Have the map these entries and no others, in one step; what it had stays where this fails.

    They are given in pieces, as HAProxy drops a command with its payload that is longer than its buffer, and
    says nothing; it is asked how many it has before they count.

    Raises:
        Unavailable: it does not answer, or refuses.
        Conflict: it has fewer entries, or more, than it took.
    """
    version = (await haproxy.order(f"prepare map {entries}")).rpartition(" ")[2]
    for piece in _pieces(lines):
        await haproxy.order(f"add map @{version} {entries} <<\n{piece}")
    given = lines.count("\n")
    found = len(_ENTRY.findall(await haproxy.ask(f"show map @{version} {entries}"))) if given else 0
    if found != given:
        await haproxy.ask(f"clear map @{version} {entries}")
        raise Conflict(
            f"HAProxy was given {given} entries of {entries} and has {found}; what it had before is in force"
        )
    await haproxy.order(f"commit map @{version} {entries}")


async def change_map(
    haproxy: HaproxySocket, entries: Path, before: Mapping[str, str], wanted: Mapping[str, str]
) -> None:
    """Have the map that has the entries of before the wanted ones, by those alone that differ.

    Raises:
        Unavailable: it does not answer, or refuses, as where it has no such key.
    """
    for key in before.keys() - wanted.keys():
        await haproxy.order(f"del map {entries} {key}")
    for key in before.keys() & wanted.keys():
        if before[key] != wanted[key]:
            await haproxy.order(f"set map {entries} {key} {wanted[key]}")
    new = "".join(f"{key} {wanted[key]}\n" for key in wanted if key not in before)
    for piece in _pieces(new):
        await haproxy.order(f"add map {entries} <<\n{piece}")


def _pieces(lines: str) -> Iterator[str]:
    """Yield the lines in pieces that HAProxy takes as one payload."""
    piece, size = list[str](), 0
    for line in lines.splitlines(keepends=True):
        if piece and size + len(line) > _PAYLOAD_BYTES:
            yield "".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if piece:
        yield "".join(piece)
