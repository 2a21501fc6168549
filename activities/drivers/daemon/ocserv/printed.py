r"""Names of users and groups as occtl prints them.

1.1.6 escapes each byte as a C `char`. Where that is signed (x86), each byte beyond ASCII becomes `\u00ff`, so
`jürgen` and `jörgen` are both `jÿÿrgen`. Where it is unsigned (ARM), the name is printed as it is.
"""

from activities.drivers.daemon.exempt import UNREADABLE

_BYTE = "ÿ"
LOST = _BYTE + UNREADABLE
"""Characters of an answer of occtl that may stand for others."""


def printed_forms(name: bytes) -> frozenset[str]:
    """Return how occtl may print the name: whole, each byte as a character of its own, or as the same one."""
    return frozenset(
        (
            name.decode(errors="replace"),
            name.decode("latin-1"),
            "".join(chr(byte) if byte < 0x80 else _BYTE for byte in name),  # noqa: PLR2004 - the end of ASCII
        )
    )


def readings(printed: str) -> tuple[str, ...]:
    """Return what a printed name may be: itself, and what its characters are as bytes of UTF-8."""
    try:
        return printed, printed.encode("latin-1").decode()
    except UnicodeError:
        return (printed,)
