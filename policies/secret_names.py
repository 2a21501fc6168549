"""Find secrets by the names of variables and options, and by forms that only secrets have."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_LEADS_TO_ONE = re.compile(
    r"(?:file|path|dir|directory|folder|url|uri|name|type|policy|prompt|field|attr|attribute|length|size|min"
    r"|max|ttl|age|days|expiry|required|reqd|enabled?|method|format|encoding|public[_-]?key)\d*$",
    re.IGNORECASE,
)
"""How names end of what describes a secret or leads to one."""
_ALWAYS = r"secret|passw(?:or)?d|passphrase|bind_?pw|authtok|(?:^|[^a-z])skey|api_?key"
"""Words for secrets alone."""
_WORDS = re.compile(
    rf"{_ALWAYS}|(?:^|[_.-])(?:key|token|pass|pw|pwd|pin|psk|otp|seed|credentials?)\d*$",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Return whether a value of this name is a secret itself, such as that of `LDAP_BIND_PASSWORD`."""
    words = _parted(name)
    return _WORDS.search(words) is not None and _LEADS_TO_ONE.search(words) is None


def _parted(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)


def is_always_secret_name(name: str) -> bool:
    """Return whether only secrets have this name; `key`, for example, is also that of other values."""
    return is_secret_name(name) and re.search(_ALWAYS, _parted(name), re.IGNORECASE) is not None


JWT = r"\beyJ[\w-]{4,}\.[\w-]+(?:\.[\w-]*)*"
OF_SERVICES = r"\b(?:hv[sbr]\.|gh[pousr]_|github_pat_|xox[abprs]-|glpat-)[\w.-]{8,}"
"""Tokens of services, which begin with a mark of their own."""
WEBHOOK = (
    r"https?://[^\s\"'<>]{0,200}?hooks?[\w.-]{0,40}/(?:[\w.-]{1,80}/){0,6}"
    r"(?=[\w=-]*\d)(?=[\w=-]*[a-z])[\w=-]{16,}"
)
"""An address to which everybody who knows it may write, such as that of a channel."""


class FoundSecret(NamedTuple):
    """A secret that is known by its form."""

    kind: str
    value: str
    start: int


_FORMS = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        (
            "password in an address",
            r"(?<![\w+.-])[a-z][a-z0-9+.-]{0,20}://[^\s/@:\"'<>]{0,200}:(?P<value>[^\s/@\"'<>]{1,200})@",
        ),
        ("address of a webhook", rf"(?P<value>{WEBHOOK})"),
        ("token", rf"(?P<value>{JWT}|{OF_SERVICES})"),
        ("seed of one-time passwords", r"\b\w{0,8}otp[\w-]{0,20}:\w+:(?:base32|hex|text):(?P<value>[^\s:]+)"),
        ("seed of one-time passwords", r"\botpauth://[^\s\"']{0,200}?[?&]secret=(?P<value>[^\s&\"']+)"),
    )
)


def secret_forms_in(text: str) -> Iterator[FoundSecret]:
    """Yield each secret that its form shows, whatever is called or stands around it."""
    for kind, form in _FORMS:
        for found in form.finditer(text):
            yield FoundSecret(kind, found["value"], found.start("value"))
