"""Why the engine's client could not reach its other side, in words for people.

The client says it in the words of its libraries (temporalio 1.35): what is known there is said here, and
the rest as it came.
"""

import re

DENIED = "PermissionDenied"
_STATUS = re.compile(r'Status \{ code: (?P<code>\w+), message: "(?P<said>(?:[^"\\]|\\.)*)"')
_SYSTEM = re.compile(r'Os \{ code: \d+, kind: \w+, message: "(?P<said>[^"]*)" \}')
_BEFORE = re.compile(r"^(?:Failed client connect|Poll failure|Server connection error): ")
ENDED = "it ended the connection: it does not take the certificate of this host, or asks for one"
_KNOWN = (
    ("UnknownIssuer", "its certificate is from an authority that is not trusted here"),
    ("NotValidForName", "its certificate names somebody else"),
    ("InvalidCertificate(Expired", "its certificate has expired, or the clock here is wrong"),
    ("InvalidCertificate(NotValidYet", "its certificate is not valid yet: is the clock here right?"),
    ("KeyMismatch", "the key here is not the key of the certificate here"),
    ("PrivateKeyParseError", "the key here is no key in PEM"),
    ("dns error", "nobody knows that name"),
    # TLS 1.3 says only after the handshake that a certificate is not taken: the connection ends.
    ("close_notify", ENDED),
    ("connection closed", ENDED),
    ("operation was canceled", ENDED),  # the client's own word for a request whose connection has ended
    ('message: "transport error"', ENDED),
    ("InvalidMessage", "it speaks no TLS"),
)


def refusal_in(error: BaseException) -> str | None:
    """Return the other side's own words where it refused by name; None where it did not."""
    found = _STATUS.search(_all_of(error))
    if found is None or found["code"] != DENIED:
        return None
    return _plain(found["said"])


def cause_of(error: BaseException) -> str:
    """Return in a few words why the other side was not reached."""
    text = _all_of(error)
    for mark, words in _KNOWN:
        if mark in text:
            return words
    if (system := _SYSTEM.search(text)) is not None:
        return system["said"].lower()
    if (status := _STATUS.search(text)) is not None and status["said"]:
        return _plain(status["said"])
    while (shorter := _BEFORE.sub("", text)) != text:
        text = shorter
    return text


def _all_of(error: BaseException) -> str:
    """Return what the innermost error says: those around it are the same for every cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def _plain(said: str) -> str:
    return re.sub(r"\\(.)", r"\1", said)
