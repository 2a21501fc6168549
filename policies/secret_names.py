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
OF_SERVICES = (
    r"\b(?:(?:hv[sbr]\.|gh[pousr]_(?=[a-z0-9]{16})|github_pat_|xox[abeprs]-|xapp-|glpat-|tskey-|dop_v1_)[\w.-]{8,}"
    r"|[sr]k[_-](?:live|test|ant|proj)[_-][\w-]{16,}|npm_[a-z0-9]{36}|pypi-[\w-]{50,}|(?:akia|asia)[0-9a-z]{16}"
    r"|aiza[\w-]{35}|sg\.[\w-]{22}\.[\w-]{43}|(?:bot)?\d{8,10}:(?=[\w-]*[g-z])[\w-]{33,38})(?![\w-])"
)
"""Tokens of services, which have a mark or a form of their own; the last one is Telegram's."""
WEBHOOK = (
    r"https?://[^\s\"'<>]{0,200}?hooks?[\w.-]{0,40}/(?:[\w.-]{1,80}/){0,6}"
    r"(?=[\w=-]*\d)(?=[\w=-]*[a-z])[\w=-]{16,}"
)
"""An address to which everybody who knows it may write, such as that of a channel."""


_ARGUMENTS = r"(?:[^\n;|&]|\\\r?\n){0,400}?"
"""Between a program and one of its options, also on lines that go on."""
_PROGRAMS = (
    rf"curl\b{_ARGUMENTS}[ \t](?:-u|--user|--proxy-user)[ \t=]*[\"']?[^\s:\"'$]{{1,80}}:",
    r"sshpass[ \t]+-p[ \t]*",
    rf"ldap(?:search|whoami|modify|add|delete|compare)\b{_ARGUMENTS}[ \t]-w[ \t]+",
    rf"(?:mysql|mariadb)(?:dump|admin)?\b{_ARGUMENTS}[ \t]-p(?![ \t])",
    rf"openssl\b{_ARGUMENTS}[ \t]-pass(?:in|out)?[ \t]+[\"']?pass:",
)
"""How programs that scripts call begin an argument with a password."""
_HEADER = (
    r"\b(?:(?:proxy-)?authorization|x-[\w-]{0,30}(?:key|token|secret))[\"']?[ \t]*:[ \t]*[\"']?"
    r"(?:[a-z]{3,12}[ \t]+)?(?P<value>(?=[\w+/=.~:-]*\d)[\w+/=.~:-]{8,})"
)


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
        ("token of a header", _HEADER),
        *(
            (
                "password of a program",
                rf"\b{command}[\"']?(?P<value>(?!(?:\d+|pass|password)\b)[^\s\"'$`<>()]{{2,}})",
            )
            for command in _PROGRAMS
        ),
        ("seed of one-time passwords", r"\b\w{0,8}otp[\w-]{0,20}:\w+:(?:base32|hex|text):(?P<value>[^\s:]+)"),
        ("seed of one-time passwords", r"\botpauth://[^\s\"']{0,200}?[?&]secret=(?P<value>[^\s&\"']+)"),
    )
)


def secret_forms_in(text: str) -> Iterator[FoundSecret]:
    """Yield each secret that its form shows, whatever is called or stands around it."""
    for kind, form in _FORMS:
        for found in form.finditer(text):
            yield FoundSecret(kind, found["value"], found.start("value"))
