"""The config test that strongSwan itself has not: charon is started with the config where nobody is.

It gets a network of its own, in which no port or device is taken, and another folder of sockets, since it may
be asked of an instance that runs. What swanctl has loaded into it says whether the config can be used.
"""

import asyncio
import re
from collections.abc import Sequence
from datetime import timedelta

from activities.drivers.daemon.filled_secrets import without_filled_secrets
from activities.drivers.daemon.port import Environment
from activities.drivers.programs import OF_A_DAEMON, end, start
from policies.model.errors import Refused, Unavailable

WITHIN = timedelta(seconds=10)
_ALONE = 'mount -t tmpfs run "$1"; shift; exec "$@"'
_OWN = re.compile(r"^\d+\[(?P<part>[A-Z]+)\d?\] (?:<[^>]*> )?(?P<what>.*)")
"""A line of charon's log; what has no thread's number comes from swanctl, which complains so."""
_SCRIPT = re.compile(r"^[\w-]+: (?P<what>.*)")
_LOADED = re.compile(r"successfully loaded [1-9]\d* connections|loaded [1-9]\d* of \d+ connections")
_NONE = re.compile(r"no connections found|loaded 0 of \d+ connections")
_WRONG = re.compile(r" failed: |failed to load|syntax error|invalid config file|abort initialization")
_NO_MATTER = re.compile(r"^plugin '|^opening directory '")
"""Plugins that are not in the release, and folders of kinds of credentials that it has none of."""


async def check_config(environment: Environment, command: Sequence[str]) -> None:
    """Return if the release's own program starts with the instance's config, and takes all of it.

    Raises:
        Refused: with its words.
        Unavailable: it could not be tried here, or did not say in time.
    """
    where = f"the config of slot {environment.slot.name} on {environment.gateway.name}"
    if not environment.own_networks:
        raise Unavailable(f"{where} cannot be tried: this agent may make no network of its own")
    alone = ["unshare", "-n", "-m", "--propagation", "private", "sh", "-c", _ALONE, "alone"]
    try:
        process = await start(
            [*alone, str(environment.run), *environment.inside(*command)],
            stderr=asyncio.subprocess.STDOUT,
            environment=OF_A_DAEMON,
        )
    except OSError as error:
        raise Unavailable(f"unshare cannot be started here: {error}") from error
    words, wrong, whole = "it said nothing", "", False
    try:
        async with asyncio.timeout(WITHIN.total_seconds()):
            async for raw in process.stdout or _nothing():
                line = _bare(raw.decode(errors="replace").strip())
                words = line or words
                wrong = wrong or (line if _WRONG.search(line) and not _NO_MATTER.search(line) else "")
                whole = _LOADED.search(line) is not None
                if whole or _NONE.search(line):
                    break
    except TimeoutError as late:
        shown = without_filled_secrets(words, environment.config)
        raise Unavailable(f"charon did not say in time whether it takes {where}, after {shown!r}") from late
    finally:
        if process.returncode is None:
            await end(process)
    if wrong or not whole:
        shown = without_filled_secrets(wrong or words, environment.config)
        raise Refused(f"strongSwan itself refuses {where}: {shown}")


def _bare(line: str) -> str:
    """Return a line without what says who wrote it."""
    own = _OWN.match(line)
    if own is None:
        return line
    script = _SCRIPT.match(own["what"]) if own["part"] == "DMN" else None
    return script["what"] if script else own["what"]


def _nothing() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_eof()
    return reader
