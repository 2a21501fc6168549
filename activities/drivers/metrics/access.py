"""How this installation reaches Prometheus: addresses, and what each request shows to them.

Every process, command and check reaches Prometheus by one of these. Files are read anew for each connection,
and the token for each request, so that a renewed one is in use at once.
"""

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
from cryptography import x509
from requests import PreparedRequest, Response, Session
from requests.auth import AuthBase

from activities.drivers.rights import everybody_reads, read_own
from activities.observation import MetricsUnavailable
from policies.model.errors import BadInput

LONGEST_TOKEN = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""A header's name (RFC 9110, 5.6.2)."""
_NO_POST = frozenset({403, 405, 501})
"""Answers of proxies that let only GET pass; clients of Prometheus' own project try GET then, too."""
_VALUE = re.compile(r"[\x20-\x7e]*")
_OF_THE_REQUEST = frozenset({"host", "content-length", "content-type", "transfer-encoding"})


@dataclass(frozen=True)
class Access:
    """Addresses of Prometheus, or of servers with its query API, and what they ask for."""

    urls: tuple[str, ...]
    """Replicas that have the same series, the preferred one first."""
    token: Path | None = None
    """File with the bearer token."""
    authority: Path | None = None
    """Who vouches for the servers, in PEM; the authorities of this host without it."""
    certificate: Path | None = None
    """The client certificate and those above it, in PEM."""
    key: Path | None = None
    """That certificate's key, in PEM."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers, such as the tenant's."""

    def session(self) -> Session:
        """Return a session that shows all of it, and reads nothing from the environment."""
        session = _Posting()
        session.trust_env = False
        session.headers.update(self.headers)
        session.verify = str(self.authority or _authorities_of_this_host())
        if self.certificate is not None:
            session.cert = (str(self.certificate), str(self.key or self.certificate))
        if self.token is not None:
            session.auth = _Bearer(self.token)
        return session

    def require_sound(self) -> None:
        """Return if the settings fit together and their files are what they must be; no server is asked.

        Raises:
            BadInput: The sentence names every setting that is wrong, and why.
        """
        wrong = [*self._wrong_headers(), *self._wrong_files()]
        if wrong:
            raise BadInput("; ".join(wrong))

    def _wrong_headers(self) -> Iterator[str]:
        for name, value in self.headers.items():
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                yield f"prometheus_headers: {name} is no header of printable ASCII letters; write it anew"
            elif name.lower() == "authorization":
                yield f"prometheus_headers: {name} is a secret; write the token into a file, prometheus_token"
            elif name.lower() in _OF_THE_REQUEST:
                yield f"prometheus_headers: {name} belongs to the request itself; remove it"
        if self.token is not None and any(urlsplit(url).username is not None for url in self.urls):
            yield "prometheus_token: an address of prometheus_url has a login as well; remove one of the two"
        if self.key is not None and self.certificate is None:
            yield "prometheus_key: it has no certificate; name that in prometheus_certificate"

    def _wrong_files(self) -> Iterator[str]:
        readings = (
            ("prometheus_token", self.token, _token_in),
            ("prometheus_authority", self.authority, _authorities_in),
            ("prometheus_certificate", self.certificate, self._pair_in),
        )
        for setting, path, read in readings:
            if path is None:
                continue
            try:
                read(path)
            except OSError as error:  # an error of TLS is one, too, with its own text
                yield f"{setting}: {path} cannot be read: {error.strerror or error}"
            except (BadInput, ValueError) as error:
                yield f"{setting}: {error}"

    def _pair_in(self, certificate: Path) -> None:
        ssl.create_default_context().load_cert_chain(certificate, self.key, lambda: "")


class _Posting(Session):
    """Sends parameters in the body, since proxies limit addresses to 8 KiB; by GET where POST is refused."""

    def request(  # type: ignore[override]
        self, method: str, url: str, params: Mapping[str, Any] | None = None, **more: Any
    ) -> Response:
        """Send one query. No redirect is followed: it would change POST to GET and drop the query."""
        answer = super().request(method, url, data=params, allow_redirects=False, **more)
        if answer.status_code in _NO_POST:
            answer = super().request("GET", url, params=params, allow_redirects=False, **more)
        return answer


class _Bearer(AuthBase):
    """Shows the token as it stands in the file now."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        try:
            r.headers["Authorization"] = f"Bearer {_token_in(self._path)}"
        except OSError as error:
            raise MetricsUnavailable(f"{self._path} cannot be read: {error.strerror}") from error
        except BadInput as error:
            raise MetricsUnavailable(str(error)) from error
        return r


def _token_in(path: Path) -> str:
    """Return the token in that file; no error has what is in it."""
    token = read_own(path, most=LONGEST_TOKEN)[:LONGEST_TOKEN].decode(errors="replace").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise BadInput(f"{path} is not one line of printable characters; write the token anew")
    if everybody_reads(path):
        raise BadInput(f"every user of this host may read {path}; chmod o-r {path}, and replace the token")
    return token


def _authorities_in(path: Path) -> None:
    try:
        x509.load_pem_x509_certificates(read_own(path))
    except ValueError as error:
        raise BadInput(f"{path} has no certificate in PEM; name the authorities' file") from error


def _authorities_of_this_host() -> str:
    """Return the file of authorities that programs of this host trust, else the one that comes with us."""
    return ssl.get_default_verify_paths().cafile or certifi.where()
