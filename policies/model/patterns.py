"""What the patterns of keys mean, in words: for the reference, and for whoever wrote something else."""

from collections.abc import Mapping

from policies.model.fleet import USERS_AT

PATTERNS: Mapping[str, str] = {
    r"^[A-Za-z0-9_-][A-Za-z0-9._/-]*\.ics$": "a path that ends in `.ics`",
    r"^https?://[^\s<>\"']+$": "an address that begins with `https://` or `http://`",
    r"^https?://[^\s/]+/\S*[^\s/]$": "an address like `https://HOST/OWNER/REPOSITORY`, no slash behind",
    r"^[^\x00-\x1f\x7f]+$": "one line of text",
    r"^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$": "a name: small letters, digits, dots and hyphens",
    r"^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$": "small letters, digits and hyphens",
    r"^[a-z0-9.-]+(?::[0-9]{1,5})?(?:/[a-z0-9._-]+)+$": "a registry and a name in it, like `HOST/vpn/edge`",
    r"^[a-z0-9](?:[a-z0-9._@-]*[a-z0-9])?$": "a name: small letters, digits, `.`, `_`, `@` and `-`",
    r"^(?:\*|[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)$": "a fleet's name, or `*` for every fleet",
    r"^(?:[a-z_][a-z0-9_-]*\$?|uid:[0-9]+)$": "a login name of this host, or `uid:` and a user number",
    r"^sha256:[0-9a-f]{64}$": "`sha256:` and 64 hex digits",
    r"^[0-9a-f]{64}$": "64 small hex digits",
    r"^[0-9A-F]{40}$|^[0-9A-F]{64}$": "40 or 64 capital hex digits, without spaces",
    r"^[1-9][0-9]*%?$": "a count (`2`) or a share (`25%`)",
    r"^(?:0|[1-9][0-9]*|[1-9][0-9]?%)$": "a count (`1`) or a share below all (`5%`)",
    r"^[0-9]{1,2}(?:\.[0-9]{1,2})?%$": "a share below 100 %, like `5%` or `0.5%`",
    r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$": "a name: letters, digits, `_`, `.` and `-`",
    r"^(?:file|env|vault):": "`file:PATH`, `env:NAME` or `vault:PATH#FIELD`",
    r"^(?:https://|http://127\.0\.0\.1[:/])[^\s?#]+$": "an https URL; http on this host only",
    r"^[0-9A-Za-z][0-9A-Za-z.+~_:-]*$": "letters, digits and `.+~_:-`, 64 at most",
    r"^[a-z0-9]+$": "small letters and digits",
    r"^[a-z0-9-]+$": "small letters, digits and hyphens",
    r"^[!-~]+$": "an id without spaces",
    r"^[!#-\[\]-~]+$": "a scope, without spaces",
    r"^@[^:\s]+:[^\s]+$": "a Matrix account: `@name:homeserver`",
    r"^[^\s:]+:[0-9]{1,5}$": "`ADDRESS:PORT`",
    r"^(?:https://|http://127\.0\.0\.1[:/])[^\s?#]+/$": "an https URL with a slash behind; http here only",
    r"^(?:https://|http://(?:127\.0\.0\.1[:/]|penstock$))[^\s?#]*$": "an https URL; http on this host only",
    r"^[a-z0-9]+/[a-z0-9]+$": "like `linux/amd64`",
    r"^[a-z][a-z0-9-]*$": "a key of the daemon's configuration",
    r"^(?:[a-z0-9_-]{1,63}\.)+[a-z0-9-]{1,63}$": "a DNS name with its domain, in small letters",
    r"^https?://[^\s?#@/]+(?:/[^\s?#@]*)?$": "an address like `https://HOST:PORT/PATH`, without a login",
    r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+$": "a mail address",
    USERS_AT: "a name or address, with `:PORT` if it is not 443, such as `b.vpn.example:8443`",
    r"^[A-Za-z0-9.:-]+$": "a host's name or address",
    r"\S": "text",
}
"""What a pattern means to whoever writes a value; a pattern without words here is a mistake of ours."""
