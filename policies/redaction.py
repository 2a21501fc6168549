"""Decide what of a text may leave its gateway: nothing that opens anything, wherever it stands.

A config has settings, of which those that could be a secret are emptied. In what programs say, secrets are
known by what stands before them, or by their form. Too much is removed rather than too little.
"""

import re
from collections.abc import Collection

from policies.changes import CREDENTIALS, LITERAL_SECRET
from policies.lines import lines_in
from policies.secret_names import JWT, OF_SERVICES, WEBHOOK, is_secret_name

REMOVED = "[removed]"
LONGEST_LINE = 4_096
"""Characters of a line of a log."""

_KEY = r"[\w -]{0,80}?\bkey(?: block| v\d)?-----"
_KEY_BLOCK = re.compile(
    rf"-----BEGIN {_KEY}.*?(?:-----END {_KEY}|\Z)"
    rf"|\A(?:(?!-----BEGIN).)*?-----END {_KEY}",  # the log was cut within one
    re.DOTALL | re.IGNORECASE,
)
_INLINE = re.compile(
    r"(^[^\S\n]*[\"']?<(?!(?:ca|cert|extra-certs|dh)>)(?P<option>[\w-]+)>[^\n]*\n)"
    r".*?(?P<end>^[^\S\n]*</(?P=option)>|\Z)",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
"""A file within a configuration of OpenVPN; only certificates and parameters open nothing."""
_SETTING = re.compile(r"^(?P<key>\s*[\w.-]+)(?P<is>\s*=\s*|\s+)(?P<value>\S.*)$")
_HARMLESS = re.compile(r'^"?(?:[\w-]+\[(?:[\w-]+=)?)?/[^\s",]+\]?"?$|^(?:true|false|\d+)$')
"""A path, as it is or inside `plain[passwd=…]`, a switch, a number: what leads to a secret is none."""
_DIGITS = re.compile(r'^"?\d+"?$')
PROGRAM_OPTIONS = frozenset(
    """
    up down ipchange route-up route-pre-down client-connect client-disconnect client-crresponse learn-address
    tls-verify auth-user-pass-verify plugin
    """.split()  # noqa: SIM905 - words, not a table
)
"""Options of OpenVPN that name a program or a module, with arguments that it receives."""
_SCRIPTS = frozenset(("connect-script", "disconnect-script", "host-update-script"))
"""The same of ocserv."""
_PROGRAM = re.compile(r"""["']*(?:/[^\s"']*|[\w.+-]+\.so)(?=[\s"']|$)["']?""")
_OPTION_OF = re.compile(r"^(?P<before>\s*(?:--)?(?:push|setenv\s+opt)\s+[\"']?)(?P<inner>\S.*)$")
"""Options that carry another one: for clients, or for versions that have it."""
_VARIABLE = re.compile(
    r"^(?P<key>\s*(?:--)?setenv(?:-safe)?\s+[\"']?(?P<name>[^\s\"'=]+)[\"']?)\s+(?P<value>\S.*)$"
)
LEAST_PART = 6
"""Characters from which a value is removed also inside a longer word; a shorter one only as a whole word."""

# Bounded, since a log's line may be one word of 64 KiB, and is not to be read once for each of its letters.
_NAMED = (
    r"(?:token|secret|passw|passphrase|pwd|credential|cookie|api[-_]?key|access[-_]?key|"
    r"private[-_]?key|authorization|x-auth|session[-_]?id|webvpn|psk|otp)[\w.-]{0,40}"
)
_ELEMENT = rf"<[\w.:-]{{0,40}}?{_NAMED}"
_FLAG = rf"(?<![\w-])(--?[\w.-]{{0,40}}?{_NAMED})(?<!file)(?<!path)(=|\s+)"
_QUOTED = r"""(?:"(?:\\.|[^"\\\n])*(?:"|$)|'(?:\\.|[^'\\\n])*(?:'|$))"""

_FORMS = tuple(
    (re.compile(pattern, re.IGNORECASE | re.MULTILINE), instead)
    for pattern, instead in (
        # ocserv's log has at most 512 bytes of what a client sent, so that it may end anywhere.
        (r"(POST body:)[^\n]*", rf"\1 {REMOVED}"),
        (rf"({_ELEMENT}\s)[^<>\n]*[^<>/\n]", rf"\1{REMOVED}"),
        (
            rf"({_ELEMENT}(?:\s[^<>\n]{{0,400}})?(?<!/)>)(?:[^<]{{0,1024}}(?=</)|(?:(?!</)[^\n])*)",
            rf"\1{REMOVED}",
        ),
        (rf"\A[^<]{{1,1024}}(?=</{_ELEMENT[1:]}\s*>)", REMOVED),  # the log was cut within one
        # A password in a URL may itself have an @, and the last one ends it.
        (r"([a-z0-9+.-]{1,20}://)[^\s\"'<>]*@", rf"\1{REMOVED}@"),
        (rf"{_FLAG}{_QUOTED}", rf"\1\2{REMOVED}"),
        (rf"{_FLAG}\S+", rf"\1\2{REMOVED}"),
        # A header, or what is written like one, has a value to the end of its line.
        (rf"({_NAMED}[\"']?\s*:\s*){_QUOTED}", rf"\1{REMOVED}"),
        (rf"({_NAMED}[\"']?\s*:)(?!/)[^\S\n]*[^\s\[][^\n]*", rf"\1 {REMOVED}"),
        (r"(x-[\w-]{0,40}?(?:auth|key|sign)[\w-]{0,40}\s*:)[^\S\n]*\S[^\n]*", rf"\1 {REMOVED}"),
        (r"\b(bearer|basic|digest|negotiate|ntlm|apikey)(\s+)(?!\[removed)\S{6,}", rf"\1\2{REMOVED}"),
        (JWT, REMOVED),
        (OF_SERVICES, REMOVED),
        (WEBHOOK, REMOVED),
        (r"\$(?:[156aby]|2[aby]|gy|apr1|argon2\w{1,2}|scrypt)\$\S+", REMOVED),
    )
)
_ASSIGNED = re.compile(rf"({_NAMED}[\"']?\s*=\s*)(?:{_QUOTED}|\S+)", re.IGNORECASE | re.MULTILINE)


def without_secrets(config: str) -> str:
    """Return the config with every value removed that could be a secret; paths to secrets stay."""
    without_files = _INLINE.sub(rf"\1{REMOVED}\n\g<end>", config)
    lines = lines_in(_KEY_BLOCK.sub(REMOVED, without_files))
    return "\n".join(_harmless(line) for line in lines) + "\n"


def without_tokens(text: str) -> str:
    """Return what a program said, without keys, tokens, cookies, passwords and headers that carry them."""
    return _ASSIGNED.sub(rf"\1{REMOVED}", _without_forms(_KEY_BLOCK.sub(REMOVED, text)))


def without_values(text: str, values: Collection[str]) -> str:
    """Return the text with each of these values removed, the longest first."""
    for value in sorted((value for value in values if value in text), key=len, reverse=True):
        if len(value) < LEAST_PART:
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", REMOVED, text)
        else:
            text = text.replace(value, REMOVED)
    return text


def _harmless(line: str) -> str:
    setting = _SETTING.match(line)
    if LITERAL_SECRET.search(line):
        return f"{setting['key']}{setting['is']}{REMOVED}" if setting else REMOVED
    if setting is None or line.lstrip().startswith(("#", ";")):
        return without_tokens(line)
    if carrier := _OPTION_OF.match(line):
        return f"{carrier['before']}{_harmless(carrier['inner'])}"
    if variable := _VARIABLE.match(line):
        return f"{variable['key']} {_harmless_value(variable['name'], variable['value'])}"
    name = setting["key"].strip().removeprefix("--")
    value = setting["value"]
    if name in PROGRAM_OPTIONS or name in _SCRIPTS:
        return f"{setting['key']}{setting['is']}{_program_of(value)}"
    return f"{setting['key']}{setting['is']}{_harmless_value(name, value)}"


def _harmless_value(name: str, value: str) -> str:
    """Return the value of a setting or variable of this name, as far as it may be shown."""
    stripped = value.strip().strip("\"'")
    if _HARMLESS.match(value.strip()) and not (is_secret_name(name) and _DIGITS.match(stripped)):
        return value
    if CREDENTIALS.search(name) or is_secret_name(name):
        return REMOVED
    return without_tokens(value)


def _program_of(value: str) -> str:
    """Return the program's path alone: its arguments may be secrets, wherever they stand."""
    found = _PROGRAM.match(value)
    if found is None:
        return REMOVED
    return found[0] if found.end() == len(value.rstrip()) else f"{found[0]} {REMOVED}"


def _without_forms(text: str) -> str:
    for form, instead in _FORMS:
        text = form.sub(instead, text)
    return text


def with_short_lines(log: str) -> str:
    """Return the log with lines cut after 4,096 characters, which no daemon writes.

    What is looked for in a line takes time that grows with the square of its length.
    """
    return "\n".join(
        line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} [the rest of this line was cut]"
        for line in log.split("\n")
    )
