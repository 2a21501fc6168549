"""notices.yaml: the sinks that people read, who is told of what by which, and when somebody is woken."""

import re
from datetime import time, timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from policies.model.notice import NoticeLevel
from policies.model.people import EVERY_FLEET, FleetOrEvery
from policies.model.value import Duration, Name, Value, twice

Url = Annotated[str, Field(pattern=r"^https?://[^\s?#@/]+(?:/[^\s?#@]*)?$", max_length=500)]
"""An address without a login, a query or a fragment: what is secret stands in a file of its own."""

PrivateFile = Annotated[str, Field(min_length=1, max_length=500)]
"""A file that only its owner may read, from the folder of notices.yaml on."""

MailAddress = Annotated[str, Field(pattern=r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+$", max_length=254)]


def _zone(said: str) -> str:
    if said not in available_timezones():
        raise ValueError(f"there is no zone {said}; write one like Europe/Berlin")
    return said


Zone = Annotated[str, AfterValidator(_zone)]


class SinkOf(Value):
    """What all sinks have."""

    name: Name
    """What routes and commands call it."""


class HttpSink(SinkOf):
    """What all sinks have that are told over HTTP: nothing is told in the open but on this host itself."""

    url: Url
    """Where notices are posted to; without TLS only on this host itself."""
    authorities: PrivateFile | None = None
    """Certificates of an authority of your own, in PEM; left out: those that the host trusts."""

    @model_validator(mode="after")
    def _is_secret(self) -> Self:
        if not self.url.startswith("https://") and _ON_THIS_HOST.fullmatch(self.url) is None:
            # Its path may be a secret; whoever reads this sentence sees the host alone.
            host = "/".join(self.url.split("/")[:3])
            raise ValueError(f"{host} would be told in the open; write https://")
        return self


class WebhookSink(HttpSink):
    """Posts CloudEvents to an address of yours, signed with a key that both sides have."""

    kind: Literal["webhook"]
    """Signed CloudEvents over HTTP."""
    key_file: PrivateFile
    """Holds the key that signs, 32 characters at least, in one line."""


class Tls(StrEnum):
    """How a mail server is spoken to."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


class SmtpSink(SinkOf):
    """Sends mail; all mails of a change are one conversation."""

    kind: Literal["smtp"]
    """Mail."""
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]+$", max_length=253)]
    """The mail server."""
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    """Where it listens."""
    tls: Tls = Tls.STARTTLS
    """`starttls`, `tls` from the first byte on, or `none`, which is only allowed on this host itself."""
    login: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """Who logs in there; left out: nobody does."""
    password_file: PrivateFile | None = None
    """Holds the password of the login, in one line."""
    sender: MailAddress
    """From whom the mails are."""
    to: Annotated[tuple[MailAddress, ...], Field(min_length=1, max_length=50)]
    """Who gets them."""
    authorities: PrivateFile | None = None
    """Certificates of an authority of your own, in PEM; left out: those that the host trusts."""

    @model_validator(mode="after")
    def _is_secret(self) -> "SmtpSink":
        if self.tls is Tls.NONE and self.host not in _THIS_HOST:
            raise ValueError(f"mail to {self.host} would be sent in the open; write tls: starttls")
        if (self.login is None) != (self.password_file is None):
            raise ValueError("login and password_file belong together; give both or neither")
        return self


class PagerdutySink(HttpSink):
    """Opens, acknowledges and resolves incidents by PagerDuty's Events API v2, or what speaks like it."""

    kind: Literal["pagerduty"]
    """Incidents by PagerDuty's Events API v2."""
    url: Annotated[Url, Field(alias="endpoint")] = "https://events.pagerduty.com/v2/enqueue"
    """Where events are posted to; without TLS only on this host itself."""
    routing_key_file: PrivateFile
    """Holds the integration's key, in one line."""


class AlertmanagerSink(HttpSink):
    """Has alerts fire in an Alertmanager for as long as something waits."""

    kind: Literal["alertmanager"]
    """Alerts in a Prometheus Alertmanager."""
    url: Url
    """Its own address, before `/api/v2/alerts`; without TLS only on this host itself."""
    token_file: PrivateFile | None = None
    """Holds a bearer token, where something before it asks for one."""


class ChatSink(SinkOf):
    """Keeps notices until the chat process fetches them."""

    kind: Literal["chat"]
    """The chat process asks for them."""


AnySink = Annotated[
    WebhookSink | SmtpSink | PagerdutySink | AlertmanagerSink | ChatSink, Field(discriminator="kind")
]


class Route(Value):
    """Which sinks get notices of these levels of these fleets; every route that fits counts."""

    fleets: Annotated[tuple[FleetOrEvery, ...], Field(min_length=1)] = (EVERY_FLEET,)
    """Of which fleets; `*` is all of them."""
    levels: Annotated[tuple[NoticeLevel, ...], Field(min_length=1)] = tuple(NoticeLevel)
    """How loud: `info`, `needs_you`, `page`."""
    sinks: Annotated[tuple[Name, ...], Field(min_length=1)]
    """The names of sinks."""


class QuietHours(Value):
    """When notices of fleets wait until the morning; a page never waits."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    fleets: Annotated[tuple[FleetOrEvery, ...], Field(min_length=1)] = (EVERY_FLEET,)
    """Of which fleets; `*` is all of them."""
    zone: Zone
    """Whose local time it is, such as Europe/Berlin."""
    begin: Annotated[time, Field(alias="from")]
    """When it becomes quiet, such as "22:00"."""
    to: time
    """When it ends; before `from` it is on the next day."""
    levels: Annotated[tuple[Literal["info", "needs_you"], ...], Field(min_length=1)] = ("info",)
    """What waits: `info`, and `needs_you` where nobody works at night."""
    sinks: tuple[Name, ...] = ()
    """By which sinks; none written is by all of them."""

    @model_validator(mode="after")
    def _is_a_time(self) -> "QuietHours":
        if self.begin == self.to:
            raise ValueError("quiet hours from a time to the same time never begin; write two times")
        return self

    @property
    def tz(self) -> ZoneInfo:
        """The zone itself."""
        return ZoneInfo(self.zone)


class Escalation(Value):
    """When something becomes louder because nobody does anything."""

    act_within: Duration = timedelta(minutes=10)
    """How long what needs a person may wait before somebody is paged."""
    acknowledge_within: Duration = timedelta(minutes=10)
    """How long a page may stay unacknowledged before the next sink is told, too."""
    next: tuple[Name, ...] = ()
    """The sinks that are told one after the other of a page that nobody acknowledged."""


class NoticeRules(Value):
    """notices.yaml: sinks, routes, quiet hours and escalation."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    api_version: Literal["penstock/v1"] = Field(alias="apiVersion")
    """The form of this file."""
    sinks: Annotated[tuple[AnySink, ...], Field(max_length=50)] = ()
    """Where notices go."""
    routes: Annotated[tuple[Route, ...], Field(max_length=500)] = ()
    """Who gets what."""
    quiet_hours: Annotated[tuple[QuietHours, ...], Field(max_length=100)] = ()
    """When what can wait does."""
    escalation: Escalation = Escalation()
    """When something becomes louder."""

    @model_validator(mode="after")
    def _names_what_is_there(self) -> "NoticeRules":
        names = [one.name for one in self.sinks]
        if double := twice(names):
            raise ValueError(f"two sinks are called {double}; one of them is meant")
        named = [
            *(name for route in self.routes for name in route.sinks),
            *(name for quiet in self.quiet_hours for name in quiet.sinks),
            *self.escalation.next,
        ]
        if missing := next((name for name in named if name not in names), None):
            raise ValueError(f"there is no sink {missing}; there is {', '.join(names) or 'none'}")
        pagers = {one.name for one in self.sinks if isinstance(one, PagerdutySink)}
        loud = (name for route in self.routes if NoticeLevel.INFO in route.levels for name in route.sinks)
        if pager := next((name for name in loud if name in pagers), None):
            raise ValueError(f"{pager} would get an incident for each info; leave info out of its levels")
        return self


_THIS_HOST = frozenset({"127.0.0.1", "localhost", "::1"})


_ON_THIS_HOST = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]+)?(?:/.*)?")
