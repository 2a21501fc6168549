"""How much ocserv logs: the exporter reads logins from the log, so penstock writes `log-level` itself.

Measured with 1.1.6 and 1.3.0. Below 3 a failed login is not in the log, or has no user. 1.3.0 takes
`log-level` in place of `-d`, and 1.1.6 the other way round. Both take it of each virtual host alone: one
without a line of its own logs no login, also where the lines before the sections say 3.
"""

from activities.drivers.daemon.ocserv.config import number_in, with_one

LEAST, MOST = 3, 9
"""Levels in whose log each login is read."""


def with_log_level(config: str) -> str:
    """Return the configuration with a level in each section at which logins are read; a higher one stays."""
    return with_one(config, "log-level", lambda said: str(min(max(LEAST, number_in(said)), MOST)))
