"""Names of variables and options whose values are secrets, by the words that programs use for them."""

import re

_LEADS_TO_ONE = re.compile(
    r"(?:file|path|dir|directory|folder|url|uri|name|type|policy|prompt|field|attr|attribute|length|size|min"
    r"|max|ttl|age|days|expiry|required|enabled?|method|format|encoding|public[_-]?key)\d*$",
    re.IGNORECASE,
)
"""How names end of what describes a secret or leads to one."""
_WORDS = re.compile(
    r"secret|passw(?:or)?d|passphrase|bind_?pw|authtok|(?:^|[^a-z])skey|api_?key"
    r"|(?:^|[_.-])(?:key|token|pass|pw|pwd|pin|psk|otp|seed|credentials?)\d*$",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Return whether a value of this name is a secret itself, such as that of `LDAP_BIND_PASSWORD`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return _WORDS.search(words) is not None and _LEADS_TO_ONE.search(words) is None
