"""Logging in by the identity provider's device grant (RFC 8628): the browser may be on another machine."""

import sys
import time
from typing import Any

from orchestrator.cli import credentials
from orchestrator.cli.client import Api, Problem
from orchestrator.cli.output import Output, OutputOption, emit, say
from orchestrator.exit_code import ExitCode
from orchestrator.words.text import printable

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SLOWER_SECONDS = 5.0
"""How much longer to wait between two questions, each time the provider asks for it (section 3.5)."""

Json = Any


def login(output: OutputOption = Output.TABLE) -> None:
    """Log in at the identity provider of the API at PENSTOCK_URL, in a browser of any machine."""
    api = Api()
    url = _url_of(api)
    said = api.get("login")
    issuer, authorities = said["issuer"], said["authorities"]
    found = _asked(issuer.rstrip("/") + "/.well-known/openid-configuration", None, authorities, "issuer")
    device, endpoint = found.get("device_authorization_endpoint"), found.get("token_endpoint")
    if not (device and endpoint):
        raise Problem("Refused", f"{issuer} offers no login for devices", exit_code=ExitCode.REFUSED)
    form = {"client_id": said["client"], "scope": " ".join(said["scopes"])}
    asked = _asked(device, form, authorities, "device_code")
    place = asked.get("verification_uri_complete") or asked["verification_uri"]
    sys.stderr.write(printable(f"Open {place} and compare the code: {asked['user_code']}") + "\n")
    sys.stderr.flush()
    provider = {"endpoint": endpoint, "client": said["client"], "authorities": authorities}
    credentials.keep(url, _granted(provider, asked))
    caller = Api().get("whoami")
    sentence = f"You are {caller['person']} at {url}."
    emit(output, "Caller", caller, lambda: say(sentence), names=[caller["person"]])


def logout(output: OutputOption = Output.TABLE) -> None:
    """Forget the login for the API at PENSTOCK_URL."""
    url = _url_of(Api())
    done = credentials.forget(url)
    sentence = f"The login for {url} is forgotten." if done else f"There was no login for {url}."
    emit(output, "Logout", {"url": url, "new": done}, lambda: say(sentence), names=[url])


def _url_of(api: Api) -> str:
    if api.url is None:
        sentence = "at the local socket the kernel says who you are; PENSTOCK_URL names another host's API"
        raise Problem("BadInput", sentence, exit_code=ExitCode.USAGE)
    return api.url


def _asked(place: str, form: dict[str, str] | None, authorities: str | None, wanted: str) -> Json:
    """Return what the provider answers, which has what is wanted of it."""
    try:
        status, answer = credentials.ask(place, form, authorities)
    except (OSError, ValueError) as error:
        raise Problem("Unavailable", f"{place} does not answer as it must: {error}") from error
    if wanted not in answer:
        why = answer.get("error_description") or answer.get("error") or status
        raise Problem("Refused", f"the identity provider refused: {why}", exit_code=ExitCode.REFUSED)
    return answer


def _granted(provider: Json, asked: Json) -> Json:
    """Ask until the person has said yes or no, or the code is over; return the login."""
    pause, until = float(asked.get("interval", 5)), time.monotonic() + float(asked["expires_in"])
    form = {"grant_type": GRANT, "device_code": asked["device_code"], "client_id": provider["client"]}
    while time.monotonic() < until:
        time.sleep(pause)
        try:
            _, answer = credentials.ask(provider["endpoint"], form, provider["authorities"])
        except (OSError, ValueError):
            pause += SLOWER_SECONDS  # section 3.5: a provider that is silent is asked less often
            continue
        if login := credentials.granted(answer, provider):
            return login
        error = answer.get("error")
        if error == "slow_down":
            pause += SLOWER_SECONDS
        elif error != "authorization_pending":
            why = answer.get("error_description") or error or "it gave no ID token"
            raise Problem("NotAllowed", f"the login was refused: {why}", exit_code=ExitCode.NOT_ALLOWED)
    late = "nobody confirmed the login in time; try again"
    raise Problem("NotAllowed", late, exit_code=ExitCode.NOT_ALLOWED)
