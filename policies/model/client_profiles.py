"""Client profiles: how users' clients are set up that exist already, and have to go on working.

A profile is a list of options, each as a client's own file has it. Only those are taken that say how client
and gateway talk to each other: none that runs a program, leads elsewhere, or reads a file but one that the
gateway's own agent names.
"""

import re
import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, Field

from policies.model.value import Name

MOST_PROFILES = 8
"""A login and its pings of each are made one after another, as users of one name are."""
MOST_OPTIONS = 16

ALONE = frozenset({"comp-noadapt", "comp-lzo", "compress", "disable-dco", "float", "mssfix", "ncp-disable"})
"""Options that may stand without a value."""
VALUED = frozenset(
    {
        *("allow-compression", "auth", "cipher", "comp-lzo", "compat-mode", "compress", "data-ciphers"),
        *("data-ciphers-fallback", "fragment", "key-direction", "key-method", "keysize", "link-mtu"),
        *("max-packet-size", "mssfix", "ncp-ciphers", "peer-fingerprint", "providers", "reneg-sec"),
        *("tls-cert-profile", "tls-cipher", "tls-ciphersuites", "tls-groups", "tls-version-max"),
        *("tls-version-min", "tran-window", "tun-mtu"),
    }
)
"""Options of OpenVPN's clients that say how they talk, each with its value."""
FILES = frozenset({"ca", "tls-auth", "tls-crypt", "tls-crypt-v2"})
"""Options that name a file: here by its name under `probe.files` of the agent's own file."""

_SEVERAL = {"fragment": 2, "mssfix": 2, "providers": 4, "tls-auth": 2, "tls-version-min": 2, "tun-mtu": 2}
"""How many values an option may have, where that is more than one."""
_WORD = re.compile(r"[A-Za-z0-9@!?+][A-Za-z0-9:@!?+=,._-]*")
"""What lists of ciphers have, too, such as `DEFAULT:@SECLEVEL=0`; none of it begins an option or a path."""
_DIRECTION = ("0", "1")

ToldOption = Annotated[str, Field(max_length=200)]
"""An option as a host is told it, which looks at it once more."""
ToldProfiles = Annotated[
    dict[Name, Annotated[tuple[ToldOption, ...], Field(max_length=MOST_OPTIONS)]],
    Field(max_length=MOST_PROFILES),
]


def words_of(option: str) -> tuple[str, ...]:
    """Return the words of an option that a client profile may have; quotes and a comment are no part of it.

    Raises:
        ValueError: It is none.
    """
    name, *values = shlex.split(option, comments=True) or [""]
    known = ", ".join(sorted(ALONE | VALUED | FILES))
    if name not in ALONE | VALUED | FILES:
        raise ValueError(f"`{option}` is no option of a client profile; take one of {known}")
    if strange := next((word for word in values if not _WORD.fullmatch(word)), None):
        raise ValueError(f"`{option}` has {strange!r}; write words of letters, digits and `:@!?+=,._-`")
    most = _SEVERAL.get(name, 1)
    if len(values) > most or (not values and name not in ALONE):
        raise ValueError(f"`{option}` has {len(values)} values; write `{name} VALUE`")
    if name == "tls-auth" and values[1:] and values[1] not in _DIRECTION:
        raise ValueError(f"`{option}` has the direction {values[1]}; write 0 or 1")
    return (name, *values)


def file_of(option: str) -> str | None:
    """Return the name of the file that an option reads, None for an option that reads none."""
    name, *values = option.split()
    return values[0] if name in FILES else None


def _is_of_a_client(option: str) -> str:
    if not option.strip():
        raise ValueError("an option is empty; leave it out")
    return " ".join(words_of(option))


ClientOption = Annotated[str, Field(max_length=200), AfterValidator(_is_of_a_client)]
"""An option that a client profile may have, such as `data-ciphers AES-256-CBC` or `tls-auth KEY 1`."""

ClientProfiles = Annotated[
    dict[Name, Annotated[tuple[ClientOption, ...], Field(max_length=MOST_OPTIONS)]],
    Field(max_length=MOST_PROFILES),
]
"""Client profiles by name; one without options is a client of today's with its defaults."""

Profiles = Mapping[Name, tuple[str, ...]]
"""Profiles as they are handed on."""
NO_PROFILES: Profiles = MappingProxyType({})
