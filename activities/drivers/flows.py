"""The flows that the kernel tracks (conntrack), where it must forget some.

A redirected UDP flow keeps its instance for as long as packets come, whatever the table says by then: 120
seconds after the last one, which a client that tries again and again never lets pass.
"""

from ipaddress import IPv4Address, IPv6Address

from activities.drivers.programs import run
from policies.model.errors import Unavailable

_NOTHING = "0 flow entries have been deleted"


async def forget_flows(port: int, source: tuple[IPv4Address | IPv6Address, int] | None = None) -> None:
    """Have the kernel forget UDP flows that it redirects to this port of the host: of one source, or all.

    Raises:
        Unavailable: It does not, or `conntrack` is not installed.
    """
    versions = (4, 6) if source is None else (source[0].version,)
    of_source = () if source is None else ("--orig-src", str(source[0]), "--orig-port-src", str(source[1]))
    for version in versions:
        command = ["conntrack", "-D", "-f", f"ipv{version}", "-p", "udp", "--reply-port-src", str(port)]
        done = await run([*command, *of_source])
        if done.status and _NOTHING not in done.err:
            raise Unavailable(f"flows to port {port} cannot be forgotten: {done.last_words}")
