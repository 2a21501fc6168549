"""What ocserv's own test of a configuration says, without what says nothing."""

from activities.drivers.programs import Completed
from policies.lines import lines_in

MOST = 5
"""Reasons that are kept; ocserv stops at the first error, and prints a few lines about it."""


def reasons_in(ran: Completed) -> str:
    """Return every reason that `ocserv -t` printed; its last line alone says where, and not what is wrong."""
    said = [line.strip() for line in (*lines_in(ran.out), *lines_in(ran.err))]
    lines = [line for line in said if line and not line.startswith("note:")]
    errors = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    return "; ".join((errors or lines[-1:])[-MOST:])
