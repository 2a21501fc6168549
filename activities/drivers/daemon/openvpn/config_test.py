"""The config test that OpenVPN itself has not: it is started with the config where nobody is.

It gets a network of its own, in which no port or device is taken, and another management socket, since it
may be asked of an instance that runs. Whoever says that initialization is complete has read certificate,
key and every option.
"""

import asyncio
from datetime import timedelta

from activities.drivers.daemon.filled_secrets import without_filled_secrets
from activities.drivers.daemon.openvpn.management import SOCKET
from activities.drivers.daemon.port import CONFIG, Environment
from activities.drivers.programs import OF_A_DAEMON, end, start
from policies.model.errors import Refused, Unavailable

PROGRAM = "/usr/sbin/openvpn"
FILE = "openvpn.conf"
WITHIN = timedelta(seconds=10)
_GOOD = "Initialization Sequence Completed"
_LAST = ("Exiting due to fatal error", "Options error: Please correct these errors.")
"""What it says after the line that says why."""


async def check_config(environment: Environment) -> None:
    """Return if the release's own program starts with the instance's config.

    Raises:
        Refused: with its words.
        Unavailable: it could not be tried here, or did not say in time.
    """
    if not environment.own_networks:
        raise Unavailable(
            f"the config of slot {environment.slot.name} on {environment.gateway.name} cannot be tried: this "
            "agent may make no network of its own"
        )
    own = ("--management", f"/tmp/{SOCKET}", "unix", "--suppress-timestamps")  # noqa: S108 - a tmpfs of its own
    command = environment.inside(PROGRAM, "--config", f"{CONFIG}/{FILE}", *own)
    try:
        process = await start(
            ["unshare", "-n", *command], stderr=asyncio.subprocess.STDOUT, environment=OF_A_DAEMON
        )
    except OSError as error:
        raise Unavailable(f"unshare cannot be started here: {error}") from error
    words, good = "it said nothing", False
    try:
        async with asyncio.timeout(WITHIN.total_seconds()):
            async for raw in process.stdout or _nothing():
                line = raw.decode(errors="replace").strip()
                if good := line.endswith(_GOOD):
                    break
                words = words if not line or line in _LAST or line.startswith("Use --help") else line
    except TimeoutError as late:
        shown = without_filled_secrets(words, environment.config)
        raise Unavailable(
            f"OpenVPN did not say in time whether it takes the config, after {shown!r}"
        ) from late
    finally:
        if process.returncode is None:
            await end(process)
    if not good:
        raise Refused(
            f"OpenVPN itself refuses the config of slot {environment.slot.name} on "
            f"{environment.gateway.name}: {without_filled_secrets(words, environment.config)}"
        )


def _nothing() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_eof()
    return reader
