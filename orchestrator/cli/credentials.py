"""What the identity provider gave this person for each API, kept where only they can read it."""

import json
import os
import time
from pathlib import Path
from typing import Any

SPARE_SECONDS = 30.0
"""How long before its end a login is renewed."""

ANSWER_SECONDS = 5.0
Json = Any


def path() -> Path:
    """Return the file that holds them."""
    configuration = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(configuration) / "penstock" / "logins.json"


def token_of(url: str) -> str | None:
    """Return what to show that API; renewed where the provider lets us, None where one has to log in."""
    login = _read().get(url)
    if login is None:
        return None
    if login["expires"] - SPARE_SECONDS < time.time():
        login = _renewed(url, login)
    return str(login["token"]) if login is not None else None


def keep(url: str, login: Json) -> None:
    """Keep a login for that API, readable by this user only."""
    _write(_read() | {url: login})


def forget(url: str) -> bool:
    """Forget the login for that API; return whether there was one."""
    logins = _read()
    if url not in logins:
        return False
    del logins[url]
    _write(logins)
    return True


def granted(answer: Json, provider: Json) -> Json | None:
    """Return a login as it is kept, of what a token endpoint answered; None without an ID token."""
    token = answer.get("id_token")
    if not token:
        return None
    return provider | {
        "token": token,
        "expires": _expiry(token),
        "refresh": answer.get("refresh_token") or provider.get("refresh"),
    }


def ask(place: str, form: dict[str, str] | None, authorities: str | None) -> tuple[int, Json]:
    """Ask the provider, posting the form if there is one; return the status and what it answered.

    Raises:
        OSError: It does not answer.
        ValueError: What it answers is no JSON.
    """
    import ssl  # noqa: PLC0415 - only whoever logs in waits for it
    import urllib.error  # noqa: PLC0415
    import urllib.parse  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    content = urllib.parse.urlencode(form).encode() if form is not None else None
    context = ssl.create_default_context(cadata=authorities)
    try:
        with urllib.request.urlopen(place, content, ANSWER_SECONDS, context=context) as answer:  # noqa: S310
            return int(answer.status), json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())


def _renewed(url: str, login: Json) -> Json | None:
    """Return the login renewed; None when the provider gives no other, so that one has to log in again."""
    if not login.get("refresh"):
        return None
    form = {
        "grant_type": "refresh_token",
        "refresh_token": login["refresh"],
        "client_id": login["client"],
    }
    try:
        _, answer = ask(login["endpoint"], form, login["authorities"])
    except (OSError, ValueError):
        return login  # the API says what it is still good for
    renewed = granted(answer, login)
    if renewed is not None:
        keep(url, renewed)
    return renewed


def _expiry(token: str) -> float:
    """Return when the token says that it ends; the API looks itself, so that nothing is believed here."""
    import base64  # noqa: PLC0415 - only whoever logs in waits for it

    try:
        body = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        return 0.0


def _read() -> dict[str, Json]:
    try:
        found = json.loads(path().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(logins: dict[str, Json]) -> None:
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_suffix(f".{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump(logins, out)
    fresh.replace(file)
