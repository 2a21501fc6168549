"""The proxy before the API does each harm that it names, to the requests that were named, and no other."""

import ssl
import time
from collections.abc import Iterator

import httpx
import pytest

from deploy.cluster.api import Answered, Api, Json
from deploy.cluster.control_plane import API, ControlPlane
from deploy.cluster.faults import Fault, Proxy
from policies.model.errors import Unavailable
from tests.patience import PATIENCE, wait_until


@pytest.fixture
def raw(plane: ControlPlane, proxy: Proxy) -> Iterator[httpx.Client]:
    """Give a client that shows answers as they are, and is patient."""
    trusted = ssl.create_default_context(cafile=str(plane.identities.authority))
    headers = {"Authorization": f"Bearer {plane.identities.token('admin')}"}
    with httpx.Client(base_url=proxy.url, verify=trusted, headers=headers, timeout=PATIENCE) as client:
        yield client


def note(space: str, name: str = "note") -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": space}}


def notes(space: str) -> str:
    return f"/api/v1/namespaces/{space}/configmaps"


def test_without_a_rule_everything_goes_through(through: Api, admin: Api, space: str) -> None:
    through.post(notes(space), note(space))
    through.merge(f"{notes(space)}/note", {"data": {"key": "value"}})
    assert admin.get(f"{notes(space)}/note")["data"] == {"key": "value"}
    assert [one["metadata"]["name"] for one in through.every(notes(space))].count("note") == 1
    through.delete(f"{notes(space)}/note")
    assert admin.find(f"{notes(space)}/note") is None


def test_a_watch_goes_through_as_it_happens(raw: httpx.Client, admin: Api, space: str) -> None:
    query = {"watch": "true", "fieldSelector": "metadata.name=note", "timeoutSeconds": f"{PATIENCE:.0f}"}
    with raw.stream("GET", notes(space), params=query) as answer:
        lines = answer.iter_lines()
        admin.post(notes(space), note(space))
        assert '"ADDED"' in next(lines)
        admin.delete(f"{notes(space)}/note")
        assert '"DELETED"' in next(lines)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.CONFLICT, "Conflict"),
        (Fault.EXPIRED, "Expired"),
        (Fault.FORBIDDEN, "Forbidden"),
        (Fault.UNAVAILABLE, "ServiceUnavailable"),
    ],
)
def test_a_refusal_looks_like_the_servers_own_and_nothing_was_done(
    through: Api, admin: Api, proxy: Proxy, space: str, fault: Fault, reason: str
) -> None:
    rule = proxy.inject(fault, method="POST", path="/configmaps")
    with pytest.raises(Answered) as refused:
        through.post(notes(space), note(space))
    assert refused.value.status == int(fault.value)
    assert refused.value.said["reason"] == reason
    assert refused.value.said["kind"] == "Status"
    assert admin.find(f"{notes(space)}/note") is None
    assert rule.struck == [f"POST {notes(space)}"]
    through.post(notes(space), note(space))


def test_a_429_is_plain_text_with_a_time_to_come_back(raw: httpx.Client, proxy: Proxy, space: str) -> None:
    proxy.inject(Fault.TOO_MANY, times=2, retry_after=7)
    answers = [raw.get(notes(space)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].text == "Too many requests, please try again later.\n"
    assert answers[0].headers["Retry-After"] == "7"
    assert answers[0].headers["Content-Type"].startswith("text/plain")


def test_a_fault_for_a_while_ends_by_itself(raw: httpx.Client, proxy: Proxy, space: str) -> None:
    rule = proxy.inject(Fault.FORBIDDEN, times=None, seconds=0.5)
    end = time.monotonic() + PATIENCE
    answers = []
    while (status := raw.get(notes(space)).status_code) != 200 and time.monotonic() < end:
        answers.append(status)
    assert status == 200
    assert answers == [403] * len(rule.struck)
    assert answers


def test_what_hangs_never_reaches_the_server(raw: httpx.Client, admin: Api, proxy: Proxy, space: str) -> None:
    proxy.inject(Fault.HANGS, method="POST")
    with pytest.raises(httpx.ReadTimeout):
        raw.post(notes(space), json=note(space), timeout=1)
    assert admin.find(f"{notes(space)}/note") is None
    assert raw.get(notes(space)).status_code == 200


def test_what_is_cut_before_never_reaches_the_server(
    through: Api, admin: Api, proxy: Proxy, space: str
) -> None:
    proxy.inject(Fault.CUT, method="POST")
    with pytest.raises(Unavailable, match=r"RemoteProtocolError|ReadError"):
        through.post(notes(space), note(space))
    assert admin.find(f"{notes(space)}/note") is None


@pytest.mark.parametrize("fault", [Fault.CUT_AFTER, Fault.HANGS_AFTER])
def test_what_is_lost_after_has_been_done(
    raw: httpx.Client, admin: Api, proxy: Proxy, space: str, fault: Fault
) -> None:
    proxy.inject(fault, method="POST")
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.ReadTimeout)):
        raw.post(notes(space), json=note(space), timeout=3)
    wait_until(lambda: admin.find(f"{notes(space)}/note") is not None)


def test_half_an_answer_is_a_success_that_nobody_can_read(
    raw: httpx.Client, admin: Api, proxy: Proxy, space: str
) -> None:
    proxy.inject(Fault.BROKEN_AFTER, method="POST")
    answer = raw.post(notes(space), json=note(space))
    assert answer.status_code == 201
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        answer.json()
    assert admin.find(f"{notes(space)}/note") is not None


def test_an_object_can_come_without_its_spec(through: Api, admin: Api, proxy: Proxy, space: str) -> None:
    proxy.inject(Fault.WITHOUT_SPEC_AFTER, method="GET", path=f"/namespaces/{space}$")
    assert "spec" not in through.get(f"/api/v1/namespaces/{space}")
    assert "spec" in through.get(f"/api/v1/namespaces/{space}")


def test_a_half_open_server_accepts_and_says_nothing(raw: httpx.Client, proxy: Proxy, space: str) -> None:
    with proxy.half_open(), pytest.raises((httpx.ConnectTimeout, httpx.ReadTimeout)):
        raw.get(notes(space), timeout=1)
    assert raw.get(notes(space)).status_code == 200


def test_the_server_itself_is_gone_behind_the_proxy_only_when_it_is(
    plane: ControlPlane, through: Api, proxy: Proxy, space: str
) -> None:
    plane.kill(API)
    with pytest.raises(Unavailable):
        through.get(notes(space))
    plane.start_again(API)
    through.get(notes(space))
