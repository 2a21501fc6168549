"""Lines of a text as daemons and programs end them.

Python's `str.splitlines` ends a line at ten characters more, each of which a user can have a daemon write.
"""


def lines_in(text: str) -> list[str]:
    """Return the lines without their ends; a line ends at a line feed and at nothing else."""
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]
