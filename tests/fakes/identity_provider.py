"""A real identity provider: Debian's glewlwyd on a free port of loopback, with the device grant."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from deploy.ports import free_port
from tests.patience import PATIENCE

SCHEMA = Path("/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3")
MODULES = Path("/usr/lib/glewlwyd")
CLIENT = "penstock"
SCOPES = ("openid", "email", "groups", "offline_access")
"""What the provider lists: it puts `groups` and `email` into a token only for the scope of that name."""
UP_WITHIN = PATIENCE
CONFIG = """\
port={port}
bind_address="127.0.0.1"
external_url="http://127.0.0.1:{port}"
login_url="login.html"
api_prefix="api"
log_mode="file"
log_level="INFO"
log_file="{folder}/log"
cookie_domain="127.0.0.1"
cookie_secure=0
session_expiration=3600
session_key="SESSION"
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="{modules}/user"
user_middleware_module_path="{modules}/user_middleware"
client_module_path="{modules}/client"
user_auth_scheme_module_path="{modules}/scheme"
plugin_module_path="{modules}/plugin"
hash_algorithm="SHA512"
database={{ type="sqlite3" path="{folder}/database" }};
"""


class IdentityProvider:
    """The provider of a company of its own, with people in groups."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._administrator = httpx.Client()

    @property
    def issuer(self) -> str:
        """How its tokens name it."""
        return f"{self._api}/oidc"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        port = free_port()
        self._api = f"http://127.0.0.1:{port}/api"
        config = self._folder / "config"
        config.write_text(CONFIG.format(port=port, folder=self._folder, modules=MODULES))
        tool = shutil.which("sqlite3") or "sqlite3"
        subprocess.run([tool, str(self._folder / "database")], input=SCHEMA.read_bytes(), check=True)
        program = shutil.which("glewlwyd") or "glewlwyd"
        with (self._folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [program, f"--config-file={config}"], stdout=output, stderr=output
            )
        try:
            self._configure()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._administrator.close()
        self._process.kill()
        self._process.wait()

    def add(self, person: str, *groups: str) -> None:
        """Have somebody with a password, in these groups."""
        user = {"username": person, "password": f"password of {person}", "enabled": True}
        user |= {"email": f"{person}@corp.example", "scope": [*SCOPES, "g_profile"], "groups": [*groups]}
        self._ask("POST", "/user/", user)

    def rotate_keys(self) -> None:
        """Sign with another key from now on; the one before is gone."""
        plugin = self._ask("GET", "/mod/plugin/oidc").json()
        plugin["parameters"]["jwks-private"] = _keys(f"key-{time.monotonic_ns()}")
        self._ask("PUT", "/mod/plugin/oidc", plugin)
        self._ask("PUT", "/mod/plugin/oidc/reset")

    def token_life(self, seconds: int) -> None:
        """Have tokens live so long."""
        plugin = self._ask("GET", "/mod/plugin/oidc").json()
        plugin["parameters"]["access-token-duration"] = seconds
        self._ask("PUT", "/mod/plugin/oidc", plugin)
        self._ask("PUT", "/mod/plugin/oidc/reset")

    def add_client(self, client: str) -> None:
        """Have another program that people log in to."""
        kinds = ["code", "device_authorization", "refresh_token"]
        self._ask(
            "POST",
            "/client/",
            {
                "client_id": client,
                "scope": [],
                "enabled": True,
                "confidential": False,
                "authorization_type": kinds,
                "token_endpoint_auth_method": ["none"],
                "redirect_uri": [],
            },
        )

    def send_back_to(self, place: str, client: str = CLIENT) -> None:
        """Have people of that program come back to this address, and to no other."""
        known = self._ask("GET", f"/client/{client}").json()
        self._ask("PUT", f"/client/{client}", known | {"redirect_uri": [place]})

    def agreed(self, person: str, place: str, client: str = CLIENT) -> str:
        """Log in where a page has sent a browser, agree, and return where that sends the browser back to."""
        with self.browser_of(person, client) as browser:
            answer = browser.get(place + "&g_continue")
            return str(answer.headers["location"])

    @property
    def password_page(self) -> str:
        """Where a browser sends who somebody is."""
        return f"{self._api}/auth/"

    def password_of(self, person: str) -> dict[str, str]:
        """Return what a person types there."""
        return {"username": person, "password": f"password of {person}"}

    @contextmanager
    def browser_of(self, person: str, client: str = CLIENT) -> Iterator[httpx.Client]:
        """Give a browser in which somebody has logged in at the provider and agreed to that program."""
        with httpx.Client() as browser:
            browser.post(self.password_page, json=self.password_of(person)).raise_for_status()
            browser.put(
                f"{self._api}/auth/grant/{client}/", json={"scope": " ".join(SCOPES)}
            ).raise_for_status()
            yield browser

    def confirm(self, person: str, place: str, client: str = CLIENT) -> None:
        """Do in a browser what whoever logs in is asked to: log in there, and say yes."""
        with self.browser_of(person, client) as browser:
            answer = browser.get(place + "&g_continue")
            assert "deviceComplete" in answer.headers["location"], answer.headers["location"]

    def logged_in(self, person: str, client: str = CLIENT, scope: str = "openid groups") -> str:
        """Return the ID token of somebody who has logged in to the program."""
        asked = httpx.post(f"{self.issuer}/device_authorization", data={"client_id": client, "scope": scope})
        device = asked.raise_for_status().json()
        self.confirm(person, device["verification_uri_complete"], client)
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "device_code": device["device_code"],
            "client_id": client,
        }
        answer = httpx.post(f"{self.issuer}/token", data=form)
        return str(answer.raise_for_status().json()["id_token"])

    def _configure(self) -> None:
        login = {"username": "admin", "password": "password"}
        until = time.monotonic() + UP_WITHIN
        while True:
            try:
                self._administrator.post(f"{self._api}/auth/", json=login).raise_for_status()
                break
            except httpx.TransportError:
                if time.monotonic() > until or self._process.poll() is not None:
                    said = (self._folder / "output").read_text()
                    raise RuntimeError(f"the identity provider did not come up: {said}") from None
                time.sleep(0.05)
        users = self._ask("GET", "/mod/user/database").json()
        users["parameters"]["data-format"]["groups"] = {"multiple": True, "read": True, "write": True}
        self._ask("PUT", "/mod/user/database", users)
        self._ask("PUT", "/mod/user/database/reset")
        for scope in {*SCOPES} - {"openid"}:
            self._ask("POST", "/scope/", {"name": scope, "password_required": True, "scheme": {}})
        plugin = {"module": "oidc", "name": "oidc", "display_name": "people"}
        self._ask("POST", "/mod/plugin/", plugin | {"parameters": self._parameters()})
        self.add_client(CLIENT)

    def _parameters(self) -> dict[str, Any]:
        shown = {"type": "string", "mandatory": False}
        on = ("code", "device", "refresh")
        off = ("token", "none", "password", "client")
        kinds = {f"auth-type-{kind}-enabled": kind in on for kind in (*on, *off)}
        return kinds | {
            "iss": self.issuer,
            "jwt-type": "rsa",
            "jwt-key-size": "256",
            "jwks-private": _keys("first"),
            "jwks-show": True,
            "access-token-duration": 600,
            "refresh-token-duration": 3600,
            "code-duration": 600,
            "refresh-token-rolling": True,
            "allow-non-oidc": False,
            "device-authorization-expiration": 60,
            "device-authorization-interval": 1,
            "subject-type": "public",
            "introspection-revocation-allowed": False,
            "name-claim": "mandatory",
            "email-claim": "on-demand",
            "email-claim-scope": ["email"],
            "allowed-scope": [*SCOPES],
            "scope-claim": "no",
            "client-pubkey-parameter": "",
            "pkce-allowed": True,
            "pkce-method-plain-allowed": False,
            "claims": [
                shown | {"name": "groups", "user-property": "groups", "scope": ["groups"]},
                shown | {"name": "username", "user-property": "username", "scope": ["openid"]},
            ],
            "address-claim": {"type": "no"},
        }

    def _ask(self, method: str, path: str, body: object = None) -> httpx.Response:
        answer = self._administrator.request(method, self._api + path, json=body)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer


def _keys(name: str) -> str:
    key = json.loads(RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048)))
    return json.dumps({"keys": [key | {"kid": name, "alg": "RS256", "use": "sig"}]})
