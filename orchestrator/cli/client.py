"""The API as the command line asks it: at the local socket, or at a URL with a token.

Only the standard library: every command pays for what this imports before it says anything.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

from orchestrator.cli import credentials
from orchestrator.crowd import is_this_host

if TYPE_CHECKING:
    from orchestrator.cli.connection import Exchange

ANSWER_SECONDS = 5.0
"""How long an answer may take; what takes longer on purpose says so."""

SURVEY_SECONDS = 660.0
"""How long it may take until each of 10,000 gateways was asked, many silent; the API ends it itself."""

COMPARE_SECONDS = 120.0
"""How long it may take to read the descriptions of 10,000 gateways, where others compare as well."""

STOP_SECONDS = 10.0
"""Longer than the service itself waits for a ledger, a change and an engine, one after the other."""

NOTICE_SECONDS = 1.0
"""After so long a wait somebody wants to hear what is waited for."""

STREAM_SECONDS = 45.0
"""How long a stream may be silent: it is pinged every fifteen."""

OK, REFUSED = 200, 400
"""The status of an answer, and the least of one that says no."""

Json = Any


class Problem(Exception):
    """The API says no, or says nothing; with what it offers instead and the code to end with."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        offers: list[Json] | None = None,
        exit_code: int = 1,
        answered: bool = False,
        may_be_done: bool = False,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.answered = answered
        self.may_be_done = may_be_done
        """Whether the request may be carried out nevertheless."""
        self.advice = ""
        self.offers = offers or []
        self.exit_code = exit_code


def socket_path() -> Path:
    """Return where this host's API answers: as the environment or `penstock.toml` says, or in the state."""
    chosen = os.environ.get("PENSTOCK_SOCKET")
    if chosen:
        return Path(chosen)
    import tomllib  # noqa: PLC0415 - whoever names the socket does not wait for it

    state = os.environ.get("PENSTOCK_STATE")
    folder = Path(state) if state else Path(sys.prefix).parent / ".state"
    try:
        written = tomllib.loads((folder / "penstock.toml").read_text()).get("socket")
    except (OSError, ValueError):
        written = None  # whoever runs the API hears what is wrong with the file
    return Path(written) if isinstance(written, str) else folder / "penstock.sock"


class Answers(Protocol):
    """Whoever answers as the API does: the API, or a copy of its ledger."""

    def get(self, *path: str, **query: str | int | None) -> Json:
        """Return what is there."""


class Api:
    """One API, asked by one command."""

    def __init__(
        self, url: str | None = None, token: str | None = None, patience: float = ANSWER_SECONDS
    ) -> None:
        """Ask `url`, or `$PENSTOCK_URL`, or the local socket; for so many seconds."""
        self._patience = patience
        self._notice = ""
        self._url = url or os.environ.get("PENSTOCK_URL")
        self._token = token or os.environ.get("PENSTOCK_TOKEN")
        if self._url and not self._token:
            self._token = credentials.token_of(self._url)
        if self._url:
            _require_usable(self._url, self._token)

    def surveying(self) -> "Api":
        """Return the same API, asked for what takes until every gateway has answered or is silent."""
        return self._waiting(SURVEY_SECONDS, "Every gateway is asked; one that is silent takes 20 s.")

    def walking(self) -> "Api":
        """Return the same API, asked for what takes until a tunnel of a gateway was tried."""
        return self._waiting(
            SURVEY_SECONDS, "A tunnel is tried on that gateway; one that passes nothing takes 20 s."
        )

    def comparing(self) -> "Api":
        """Return the same API, asked for what takes until a large description is read and compared."""
        return self._waiting(COMPARE_SECONDS, "The description is compared with what is so.")

    def stopping(self) -> "Api":
        """Return the same API, asked for what it may have to leave with an engine where nothing answers."""
        return self._waiting(
            STOP_SECONDS, "The change is asked. The answer says whether the order is carried out or stored."
        )

    def _waiting(self, seconds: float, notice: str) -> "Api":
        other = Api(self._url, self._token, seconds)
        other._notice = notice
        return other

    @property
    def url(self) -> str | None:
        """Where it is asked; None at the local socket."""
        return self._url

    @property
    def is_local(self) -> bool:
        """Whether it is that of this host's own socket, asked as whoever one is here."""
        return self._url is None and not self._token

    def get(self, *path: str, **query: str | int | None) -> Json:
        """Return what is there; Problem when there is nothing, or nobody answers."""
        return self._ask("GET", path, query)

    def post(self, *path: str, body: Json, key: str | None = "") -> Json:
        """Request a change once, under a key that identifies a repeat.

        Args:
            path: The route.
            body: The request.
            key: What `--id` gives, None where it is left out. A command without that option has none.

        Raises:
            Problem: The request was refused or got no answer.
        """
        chosen = key or os.urandom(12).hex()
        try:
            return self._ask("POST", path, {}, body, chosen)
        except Problem as problem:
            if problem.may_be_done and not problem.answered:
                problem.advice = (
                    "It is unknown whether the request is carried out. Check before you repeat it."
                )
                if key != "":
                    problem.advice += f" To repeat the same request, add --id {chosen}"
            raise

    def answers(self) -> bool:
        """Return whether anybody answers there."""
        try:
            self.get("whoami")
        except Problem as problem:
            return problem.code != "Unavailable"
        return True

    def lines(self, *path: str) -> Iterator[str]:
        """Yield a long answer line by line."""
        exchange = self._send("GET", _target(path, {}), {}, timeout=STREAM_SECONDS)
        try:
            if exchange.status != OK:
                raise _problem(exchange.status, exchange.read())
            yield from exchange.lines()
        except OSError as error:
            raise self._silent(error, is_sent=True) from error
        finally:
            exchange.close()

    def _ask(
        self,
        method: str,
        path: tuple[str, ...],
        query: dict[str, Any],
        body: Json = None,
        key: str | None = None,
    ) -> Json:
        headers = {"Accept": "application/json"}
        content = None
        if body is not None:
            content, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        notice = Timer(NOTICE_SECONDS, sys.stderr.write, [f"{self._notice}\n"])
        if self._notice:
            notice.start()
        exchange = self._send(method, _target(path, query), headers, content)
        try:
            said = exchange.read()
        except OSError as error:
            raise self._silent(error, is_sent=True) from error
        finally:
            notice.cancel()
            exchange.close()
        if exchange.status >= REFUSED:
            raise _problem(exchange.status, said)
        return json.loads(said) if said else None

    def _send(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        content: bytes | None = None,
        timeout: float | None = None,
    ) -> "Exchange":
        exchange = self._exchange(self._patience if timeout is None else timeout)
        if self._token:
            headers = headers | {"Authorization": f"Bearer {self._token}"}
        try:
            exchange.send(method, target, headers, content)
        except OSError as error:
            exchange.close()
            raise self._silent(error, is_sent=exchange.is_sent) from error
        return exchange

    def _exchange(self, timeout: float) -> "Exchange":
        from orchestrator.cli import connection  # noqa: PLC0415 - help and offline tools ask nobody

        if self._url is None:
            return connection.at_socket(socket_path(), timeout)
        parts = urlsplit(self._url)
        return connection.at_host(str(parts.hostname), parts.port, timeout, tls=parts.scheme == "https")

    def _silent(self, error: Exception, *, is_sent: bool) -> Problem:
        where = self._url or str(socket_path())
        if is_sent:
            why = "did not answer in time" if isinstance(error, TimeoutError) else f"gave no answer ({error})"
            return Problem("Unavailable", f"the API at {where} {why}; see its log", may_be_done=True)
        if self._url and not isinstance(error, TimeoutError | PermissionError):
            return Problem("Unavailable", f"nobody answers at {where} ({error}): check PENSTOCK_URL")
        if isinstance(error, TimeoutError):
            return Problem("Unavailable", f"the API at {where} did not answer in time; see its log")
        if isinstance(error, PermissionError):
            return Problem("NotAllowed", f"you may not knock at {where}: its rights forbid it", exit_code=4)
        return Problem(
            "Unavailable", f"no API answers at {where}: start penstock serve, or set PENSTOCK_SOCKET"
        )


def _require_usable(url: str, token: str | None) -> None:
    """Refuse a URL that leads nowhere, or where a token could be read on the way."""
    try:
        parts, port = urlsplit(url), urlsplit(url).port
    except ValueError as error:
        raise Problem("BadInput", f"PENSTOCK_URL is {url!r}: {error}", exit_code=2) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise Problem("BadInput", f"PENSTOCK_URL is {url!r}; write https://HOST:PORT", exit_code=2)
    if parts.scheme == "http" and token and not is_this_host(parts.hostname):
        sentence = "PENSTOCK_URL is without TLS, where anybody could read your token; write https://"
        raise Problem("BadInput", sentence, exit_code=2)


def _target(path: tuple[str, ...], query: dict[str, Any]) -> str:
    odd = next((part for part in path if "/" in part or not part), None)
    if odd is not None:
        raise Problem("BadInput", f'"{odd}" is no name of a fleet, a gateway or anything here', exit_code=2)
    target = "/v1/" + "/".join(quote(part, safe="") for part in path)
    asked = {name: value for name, value in query.items() if value is not None}
    return f"{target}?{urlencode(asked)}" if asked else target


def _problem(status: int, said: bytes) -> Problem:
    """Return the problem that was answered; what is no problem document is told by its status alone."""
    try:
        found = json.loads(said)
        return Problem(
            found["code"],
            found["detail"],
            offers=found["next"],
            exit_code=found["exit_code"],
            answered=True,
            may_be_done=found["code"] == "Unavailable",
        )
    except (ValueError, KeyError, TypeError):
        if status in {502, 503, 504}:
            return Problem(
                "Unavailable", f"the API, or a proxy before it, is overrun ({status})", may_be_done=True
            )
        return Problem("Internal", f"the API answered {status} and nothing that could be read; see its log")
