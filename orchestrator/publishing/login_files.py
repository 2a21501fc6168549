"""Find the secrets by which a gateway asks others who a user is, in the files that hold them.

In files of settings and scripts, a secret is known by its name (`LDAP_BIND_PASSWORD`), whatever program
reads them. In every text file that came with no package, it is known by its form. The table has other
formats, of all products: a module of PAM or a plugin reads the same file for each of them. Most are known by
a word on a line, whatever the file is called. `radcli`, `pam_radius_auth` and LDAP have files of plain words,
which are known by their names.
"""

import re
from itertools import chain
from typing import NamedTuple

from activities.drivers.daemon.template import CREDENTIAL, SECRET, is_left
from orchestrator.publishing.password_files import password_in
from policies.secret_names import is_always_secret_name, is_secret_name, secret_forms_in

LARGEST = 1 << 22
"""Bytes of a file of settings, or of a keytab."""
MOST_NAMES = 16
"""Parts of a principal's name in Kerberos; usual are one to three."""
_IPV6 = r"(?:[0-9a-f:]*::[0-9a-f:.]*|(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4})(?=[\s,]|$)"
_HOST = rf"(?:\[[^\]\s]+\]|(?!{_IPV6})[\w.-]+)"
"""A name, an IPv4 address, or an IPv6 address in brackets."""
_ADDRESS = r"(?:localhost|\[[^\]\s]+\]|[\w-]*[.:][\w.:-]+)"
"""The same where any word could stand."""
_VALUE = r"(?P<value>(?![#;](?:\s|$))\S+)"
_EXAMPLES = re.compile(r"(?:^|[/!])usr/share/(?:doc|man)/")
"""Documentation of packages, which has examples."""


_SETTINGS = re.compile(
    r"(?:^|[/!])etc/|\.(?:conf|cnf|cfg|ini|env|json|ya?ml|toml|properties|service|sh|bash|py|pl|rb|lua|php)"
    r"(?:\.template)?!?$|(?:^|[/!])\.\w",
    re.IGNORECASE,
)
"""Files that settings of a gateway are in; scripts have them, too, and hidden ones (`.aws/credentials`)."""
_LANGUAGE = re.compile(r"\.(?:py|pl|rb|lua|php)!?$", re.IGNORECASE)
_INTERPRETER = re.compile(r"#!.*(?:python|perl|ruby|lua|php|node)")
"""Scripts in which a value that is itself a secret is in quotes; others are expressions."""
_NO_SETTINGS = re.compile(
    r"(?:^|!)(?:\./|/)?(?:usr/(?!local/)|lib(?:32|64)?/|s?bin/|var/lib/dpkg/)"
    r"|/(?:node_modules|(?:site|dist)-packages|testdata|locales?|i18n)/|(?:^|[/!])etc/nsswitch\.conf$"
)
"""What comes with packages, and a file with a line for `passwd` that names services."""
_DECLARED = r"(?:export|local|readonly|declare|typeset|my|our|const|let|var|set)(?:[ \t]+-\w+)*"
"""How languages of scripts begin a line with a variable."""
_ASSIGNMENTS = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        # the whole line: NAME = VALUE, NAME: VALUE, export NAME=VALUE, my $NAME = VALUE
        (
            rf"^[ \t]*(?:{_DECLARED}[ \t]+|-[ \t]+)?[\"'$]?(?P<name>[A-Za-z][\w.-]{{0,80}})[\"']?"
            r"[ \t]*(?:[:?]?=>?|:)[ \t]*"
            r"(?P<value>\"[^\s\"]+\"|'[^\s']+'|[^\s\"']\S*?)[ \t]*[,;]?[ \t\r]*(?:[ \t][#;].*)?$"
        ),
        # two words: NAME VALUE
        (
            r"^[ \t]*(?P<name>[A-Za-z][\w.-]{0,80})[ \t]+"
            r"(?P<value>(?=\S*\d)[^\s:=\"']\S{5,}|\"[^\s\"]+\")[ \t]*;?[ \t\r]*$"
        ),
        # of JSON: "NAME": "VALUE"
        r"[\"'](?P<name>[A-Za-z][\w.-]{0,80})[\"'][ \t]*:[ \t]*(?P<value>\"[^\s\"]+\"|'[^\s']+')",
        # among others: NAME=VALUE NAME=VALUE, OTHER="NAME=VALUE"; a value is searched for more of them
        (
            r"(?<=[\s;,(\"'&?=])(?P<name>[A-Za-z][\w.-]{0,80})="
            r"(?=(?P<value>\"[^\s\"]{1,400}\"|'[^\s']{1,400}'|[^\s\"'&;,]{1,400}))"
        ),
        # of systemd: SetCredential=NAME:VALUE
        r"^[ \t]*SetCredential=(?P<name>[\w.-]{1,80}):(?P<value>\S+)",
        # of lists in YAML and JSON: name: NAME, value: VALUE
        (
            r"\bname[\"']?:[ \t]*[\"']?(?P<name>[A-Za-z][\w.-]{0,80})[\"']?,?\s{1,80}[\"']?"
            r"value[\"']?:[ \t]*(?P<value>\"[^\s\"]+\"|'[^\s']+'|[^\s\"',}]+)"
        ),
        # as an argument: --NAME VALUE, --NAME=VALUE
        (
            r"(?<=[\s\"'])--(?P<name>[A-Za-z][\w-]{0,80})(?:=|[ \t]+)"
            r"(?P<value>(?=\S*\d)(?:\"[^\s\"]+\"|'[^\s']+'|[^\s\"'-][^\s\"']*))"
        ),
        # of FreeRADIUS: ATTRIBUTE := VALUE
        r"(?<=\s)(?P<name>[\w-]{1,40}-Password)[ \t]*:?=[ \t]*(?P<value>\"[^\"\n]+\"|'[^'\n]+'|[^\s,\"']+)",
    )
)
_QUOTED = r"(?P<value>\"\S[^\"\n]{1,400}\"|'\S[^'\n]{1,400}')"
_WITH_BLANKS = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        # the whole line: NAME = "VALUE", NAME: "VALUE", export NAME="VALUE", NAME "VALUE"
        (
            rf"^[ \t]*(?:{_DECLARED}[ \t]+|-[ \t]+)?[\"'$]?(?P<name>[A-Za-z][\w.-]{{0,80}})[\"']?"
            rf"[ \t]*(?:[:?]?=>?|:|[ \t])[ \t]*{_QUOTED}[ \t]*[,;]?[ \t\r]*(?:[ \t][#;].*)?$"
        ),
        # of JSON, among others, of lists, as an argument
        rf"[\"'](?P<name>[A-Za-z][\w.-]{{0,80}})[\"'][ \t]*:[ \t]*(?={_QUOTED})",
        rf"(?<=[\s;,(\"'&?=])(?P<name>[A-Za-z][\w.-]{{0,80}})=(?={_QUOTED})",
        (
            r"\bname[\"']?:[ \t]*[\"']?(?P<name>[A-Za-z][\w.-]{0,80})[\"']?,?\s{1,80}[\"']?"
            rf"value[\"']?:[ \t]*(?={_QUOTED})"
        ),
        rf"(?<=[\s\"'])--(?P<name>[A-Za-z][\w-]{{0,80}})(?:=|[ \t]+)(?={_QUOTED})",
    )
)
"""The same where the value is in quotation marks and has blanks; only names of secrets alone count here."""
_FOR_PEOPLE = re.compile(
    r"(?:select|insert|update|delete)\s|.*(?:\$[\w({]|[`{<%]|\b(?:passw(?:or)?ds?|passphrases?|your|enter|please"
    r"|type|must|cannot|invalid|incorrect|wrong|forgot(?:ten)?|reset|change|required|missing)\b|[?:…]$|\.{3}$)",
    re.IGNORECASE,
)
"""Texts with blanks that are no passwords: labels and messages, statements of SQL, and what is filled in."""
_COMMENT = re.compile(r"^[ \t]*(?:[#;]|//)")
_HARMLESS = re.compile(
    r"[/~.*!%@<(\[|\\]|\{(?:$|[{%\s]|[\w.-]*\}$)"
    r"|\$(?=[A-Za-z_({$@?#*!-]|\d\b)|`|\d+(?:/(?:tcp|udp))?$|\w+://[^@]*$|file:|.*\$[({]"
    r"|(?:true|false|yes|no|on|off|none|null|nil|undef(?:ined)?|never|always|optional|required|disabled?"
    r"|enabled?|str(?:ing)?|ask|prompt|default|x|(?:password|passwd|secret|token|key|authtok)s?|pass:insta)$",
    re.IGNORECASE,
)
"""How values begin that are no secret: paths, references of shells and templates, numbers, switches, types.

OpenSSL has `secret = pass:insta` in each installation's openssl.cnf.
"""
_RANDOM = re.compile(r"(?![A-Z0-9]+_[A-Z0-9_]+$)(?=.*\d)(?=.*[A-Za-z])[\w+/=-]{12,}$")
"""A value that counts where its name is used for other things, too, such as `key`."""
_SCRIPT = re.compile(r"\.(?:sh|bash)!?$", re.IGNORECASE)
_FILLED = re.compile(r"\$[({]|#?\{|%[s({]|[?:`]|[\w.]+\(")
"""How values begin that a script or template fills in where it makes text of several."""
_VARIABLE = re.compile(r"\$(?=[A-Za-z_$@?#*!-]|\d\b)")
"""The same in scripts; elsewhere, a password may begin so."""
_EXAMPLE = re.compile(
    r"(?:[a-z]{0,8}[_-]?(?:pass(?:phrase|wo?r?d)?|secret)|sample|example|x+|pserver:anoncvs|.{1,5})$"
    r"|(?-i:[A-Z_]{1,14})(?![\w-])",
    re.IGNORECASE,
)
"""What texts have where a password would stand; it is short, too."""
_LONGEST_LINE = 1_000
"""Characters of a line of a script that a person has written."""
_SHORT = re.compile(r"(?:^|[_.-])(?:pass|pw|pwd|psk)\d*$", re.IGNORECASE)
_MIXED = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[^\s/:.$]{6,}$")
"""What counts where a short name is mostly that of a password."""


class _Format(NamedTuple):
    kind: str
    line: re.Pattern[str]
    """A line with a secret; its group `value` is the secret."""
    name: re.Pattern[str] = re.compile(r"")
    """Files that have such lines."""
    beside: re.Pattern[str] = re.compile(r"")
    """What else stands in such files."""


def _line(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"^[ \t]*{pattern}", re.MULTILINE | re.IGNORECASE)


def _named(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|[/!])(?:{pattern})!?$", re.IGNORECASE)


_BLOCK = _line(r"(?:server|client|tls)[ \t]+[^\s{=]+[ \t]*\{")
"""How a block of radsecproxy's begins; those of FreeRADIUS have `=` behind each name."""
_IN_BLOCKS = r"[ \t]+(?![=#{])(?P<value>\"[^\"\n]+\"|\S+)[ \t\r]*(?:#.*)?$"
_CONF = re.compile(r"(?:^|[/!])etc/|\.(?:conf|cnf|cfg)!?$", re.IGNORECASE)

FORMATS = (
    _Format(
        "shared key of RADIUS",  # radcli(3): authserver host:port:secret
        _line(rf"(?:authserver|acctserver)[ \t]+(?:[^\n#]*,[ \t]*)?{_HOST}:\d*:{_VALUE}"),
    ),
    _Format(
        "shared key of RADIUS",  # radcli(3), in its own folders
        _line(rf"[^\s#]+[ \t]+{_VALUE}"),
        _named(r"(?:radcli|radiusclient|radiusclient-ng)/servers(?:-tls)?"),
    ),
    _Format(
        "shared key of RADIUS",  # radcli(3), where `servers` names another file
        _line(rf"{_ADDRESS}(?:/\S+)?[ \t]+(?![\d.]+\s|/){_VALUE}[ \t\r]*$"),
        _named(r"servers(?:-tls)?|[\w.-]*(?:radius|radcli)[\w.-]*servers[\w.-]*"),
    ),
    _Format(
        "shared key of RADIUS",  # pam_radius_auth(8), whose package comes with `secret` and `other-secret`
        _line(rf"{_HOST}(?::\w+)?[ \t]+(?!(?:other[\w-]*-)?secret\s){_VALUE}"),
        _named(r"pam_radius[\w.-]*\.conf|raddb/server"),
    ),
    _Format(
        "shared key of RADIUS",  # openvpn-auth-radius: radiusplugin.cnf
        _line(rf"sharedsecret[ \t]*=[ \t]*{_VALUE}"),
    ),
    _Format(
        "shared key of RADIUS",  # radsecproxy.conf(5): blocks of servers and clients
        _line(rf"(?:secret|pskkey){_IN_BLOCKS}"),
        _CONF,
        beside=_BLOCK,
    ),
    _Format(
        "password of a private key",  # radsecproxy.conf(5): blocks of TLS
        _line(rf"CertificateKeyPassword{_IN_BLOCKS}"),
        _CONF,
        beside=_BLOCK,
    ),
    _Format(
        "password of LDAP",  # nslcd.conf(5), pam_ldap.conf
        _line(rf"(?:bindpw|rootbindpw|rootpwmodpw)[ \t]+(?!=){_VALUE}"),
    ),
    _Format("password of LDAP", _line(_VALUE), _named(r"[\w-]*ldap\.secret")),
    _Format(
        "password of LDAP",  # sssd-ldap(5); SSSD's own schema describes the option
        _line(rf"ldap_default_authtok[ \t]*=[ \t]*(?!str,){_VALUE}"),
    ),
    _Format(
        "password of LDAP",  # openvpn-auth-ldap
        _line(rf"Password[ \t]+(?!=){_VALUE}"),
        beside=_line(r"<LDAP>"),
    ),
    _Format(
        "secret of PPP",  # pppd(8): client, server, secret
        _line(rf"[^\s#]+[ \t]+\S+[ \t]+{_VALUE}"),
        _named(r"(?:chap|pap)-secrets"),
    ),
    _Format(
        "password of a server",  # .netrc, apt_auth.conf(5)
        _line(rf"machine[ \t]+\S+[ \t]+(?:login[ \t]+\S+[ \t]+)?password[ \t]+{_VALUE}"),
    ),
    _Format(
        "password of a database",  # .pgpass: host:port:database:user:password
        re.compile(rf"^(?!#)(?:(?:\\.|[^:\\\n])*:){{4}}{_VALUE}", re.MULTILINE),
        _named(r"[\w.-]*pgpass[\w.-]*"),
    ),
    _Format(
        "password of a mail server",  # msmtp(1)
        _line(rf"password[ \t]+{_VALUE}"),
        _named(r"\.?msmtprc"),
    ),
    _Format(
        "password of a mail server",  # Postfix: destination user:password
        _line(rf"[^\s#]\S*[ \t]+[^\s:]+:{_VALUE}"),
        _named(r"sasl_passw(?:or)?d[\w.-]*"),
    ),
    _Format(
        "password of a mail server",  # Exim: host:user:password
        _line(rf"[^\s:#][^\s:]*:[^\s:]*:{_VALUE}"),
        _named(r"passwd\.client"),
    ),
    _Format(
        "password of a registry",  # config.json of docker login: user:password in base64
        re.compile(r"\"auth\"\s*:\s*\"(?P<value>[\w+/]{8,}=*)\""),
        beside=re.compile(r"\"auths\""),
    ),
    _Format(
        "token of a registry",  # .npmrc
        _line(rf"(?:[^\s=]*:)?_(?:authToken|auth|password)[ \t]*=[ \t]*(?!\${{){_VALUE}"),
        _named(r"\.?npmrc"),
    ),
    _Format("secret key of Duo", _line(rf"skey[ \t]*=[ \t]*{_VALUE}"), beside=_line(r"ikey[ \t]*=")),
    _Format(
        "secret of a PAM module",  # pam.d(5): MODULE.so key=VALUE
        _line(
            r"[^#\n]*[ \t/]pam_\w+\.so[ \t](?:[^#\n]*[ \t\[])?"
            rf"(?:secret|key|passwd|password|bindpw)=(?!/){_VALUE}"
        ),
    ),
    _Format(
        "seeds of one-time passwords",
        _line(r"(?:HOTP|MOTP)(?:/\S*)?[ \t]+\S+[ \t]+\S+[ \t]+(?P<value>[0-9a-f]{16,})\b"),
    ),
    _Format(
        "seed of one-time passwords",  # google-authenticator(1)
        re.compile(r"\A(?P<value>[A-Z2-7]{16,})\r?\n(?=\" )"),
    ),
)
"""Formats of files by which users are authenticated."""


def login_secret_in(name: str, content: bytes) -> str | None:
    """Return what kind of login secret a file has and on which line, None for none; it is not quoted."""
    if len(content) > LARGEST or _EXAMPLES.search(name):
        return None
    if is_keytab(content):
        return "keytab of Kerberos"
    if b"\0" in content:
        return None
    text = content.decode(errors="replace")
    known = next((found for one in FORMATS if (found := _found(one, name, text))), None)
    if known is None and not _NO_SETTINGS.search(name):
        known = password_in(name, text, _is_password) or _setting(name, text)
    return known


def may_have_settings(name: str) -> bool:
    """Return whether a file came with no package, by its path, and is no example."""
    return not (_EXAMPLES.search(name) or _NO_SETTINGS.search(name))


def is_keytab(content: bytes) -> bool:
    """Return whether the bytes are a Kerberos keytab with a key: `05 02`, then entries with their lengths."""
    at = 2
    while content.startswith(b"\x05\x02") and at + 4 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big", signed=True)
        if length > 0:
            return _is_entry(content[at + 4 : at + 4 + length], length)
        if length == 0:
            return False
        at += 4 - length  # an entry that was removed
    return False


def _is_entry(entry: bytes, length: int) -> bool:
    """Return whether a keytab's entry is whole, and begins with a count of names and a realm of text."""
    count, realm = int.from_bytes(entry[:2], "big"), int.from_bytes(entry[2:4], "big")
    text = entry[4 : 4 + realm]
    return len(entry) == length and 0 < count <= MOST_NAMES and 0 < realm == len(text) and text.isascii()


def _found(one: _Format, name: str, text: str) -> str | None:
    if not (one.name.search(name) and one.beside.search(text)):
        return None
    for found in one.line.finditer(text):
        if not is_reference(found["value"]):
            return f"{one.kind}, line {text.count(chr(10), 0, found.start('value')) + 1}"
    return None


def _setting(name: str, text: str) -> str | None:
    """Return the first secret of a text file, by its name in settings and by its form, and its line."""
    expressions = bool(_LANGUAGE.search(name) or _INTERPRETER.match(text))
    settings = bool(_SETTINGS.search(name)) or text.startswith("#!")
    if settings and (known := _assigned(text, expressions=expressions)):
        return known
    plain = settings and not (expressions or text.startswith("#!") or _SCRIPT.search(name))
    for secret in secret_forms_in(text):
        if is_reference(secret.value) or _FILLED.match(secret.value):
            continue
        if (not plain and _VARIABLE.match(secret.value)) or (not settings and _EXAMPLE.match(secret.value)):
            continue
        if line := _line_of(text, secret.start):
            return f"{secret.kind}, line {line}"
    return None


def _assigned(text: str, *, expressions: bool) -> str | None:
    """Return the first secret that a text assigns, by its name, and its line."""
    short = (
        found
        for one in _ASSIGNMENTS
        for found in one.finditer(text)
        if _is_secret(found["name"], found["value"].strip("\"'"))
        and (not expressions or _is_literal(text, found))
    )
    long = (found for one in _WITH_BLANKS for found in one.finditer(text) if _is_passphrase(text, found))
    for found in chain(short, long):
        if line := _line_of(text, found.start("value")):
            return f"{found['name']}, line {line}"
    return None


def _is_literal(text: str, found: re.Match[str]) -> bool:
    """Return whether a value in a script is literal: it is in quotes, or all of NAME=VALUE is."""
    value, place = found["value"], found.start("name")
    quote = _quote_at(text, place) if text[found.end("name")] == "=" else ""
    if value[0] in "\"'":
        return value[0] != quote  # that mark ends the text which the name is in
    if text[place - 1] in "?&":
        return True
    return quote != "" and not any(one.match(value) for one in (_FILLED, _VARIABLE, _EXAMPLE))


def _quote_at(text: str, place: int) -> str:
    """Return the mark of the quoted text that the place is in, empty where it is in none."""
    begin = text.rfind("\n", 0, place) + 1
    if place - begin > _LONGEST_LINE:
        return ""
    quote = ""
    for mark in re.findall(r"\\.|[\"'`#]", text[begin:place]):
        if quote:
            quote = "" if mark == quote else quote
        elif mark == "#":
            return ""
        elif mark in "\"'`":
            quote = mark
    return quote


def _is_secret(name: str, value: str) -> bool:
    if not is_secret_name(name) or _HARMLESS.match(value):
        return False
    if is_always_secret_name(name) or _RANDOM.match(value):
        return True
    return _SHORT.search(name) is not None and _MIXED.match(value) is not None


def _is_passphrase(text: str, found: re.Match[str]) -> bool:
    """Return whether a value in quotation marks is a password with blanks."""
    mark, value = found["value"][0], found["value"][1:-1]
    if not re.search(r"\s", value) or not is_always_secret_name(found["name"]):
        return False
    if _HARMLESS.match(value) or _FOR_PEOPLE.match(value):
        return False
    return mark != _quote_at(text, found.start())  # that mark ends the text which the name is in


def _is_password(value: str) -> bool:
    return not _HARMLESS.match(value) and not is_reference(value)


def _line_of(text: str, place: int) -> int | None:
    """Return the number of the line at a place, None where it is a comment."""
    begin = text.rfind("\n", 0, place) + 1
    return None if _COMMENT.match(text[begin:place]) else text.count("\n", 0, begin) + 1


def is_reference(value: str) -> bool:
    """Return whether a value is empty, or a name for which a gateway fills in the secret."""
    bare = value.strip("\"'")
    return not bare or is_left(bare, f"${SECRET}NAME") or is_left(bare, f"${CREDENTIAL}NAME")
