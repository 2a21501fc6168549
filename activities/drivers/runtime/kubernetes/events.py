"""What the driver decides, told to whoever looks at the cluster: one Event each."""

import hashlib
import logging
from datetime import UTC, datetime

from activities.drivers.runtime.kubernetes.answers import Stale, Unread
from activities.drivers.runtime.kubernetes.api import Api, Call
from activities.drivers.runtime.kubernetes.rights import CREATE_EVENT
from activities.drivers.runtime.kubernetes.templates import Template
from activities.drivers.runtime.kubernetes.words import FIELD_MANAGER, Share
from policies.model.errors import Refused, Unavailable
from policies.model.value import sentence

_log = logging.getLogger(__name__)


class Events:
    """Events about the slots of one fleet; losing one changes nothing."""

    def __init__(self, api: Api, share: Share, reporter: str) -> None:
        """Be `reporter` in each: this process, by its host."""
        self._api = api
        self._share = share
        self._reporter = reporter

    async def tell(self, template: Template, reason: str, said: str, *, wrong: bool = False) -> None:
        """Write an Event about a slot's DaemonSet. NotAllowed where that is refused, named by its right."""
        now = datetime.now(UTC)
        name = f"{template.name}.{hashlib.sha256(f'{now}{said}'.encode()).hexdigest()[:16]}"
        regarding = {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "name": template.name,
            "namespace": self._share.namespace,
            "uid": template.uid,
        }
        stamp = f"{now:%Y-%m-%dT%H:%M:%SZ}"
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": self._share.namespace},
            "involvedObject": regarding,
            "reason": reason,
            "message": sentence(said),
            "type": "Warning" if wrong else "Normal",
            "source": {"component": FIELD_MANAGER, "host": self._reporter},
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
        path = f"/api/v1/namespaces/{self._share.namespace}/events"
        try:
            await self._api.call(Call(CREATE_EVENT, path, "POST", body=body, about=name))
        except (Stale, Unread):
            return
        except (Unavailable, Refused) as error:
            _log.warning("an Event about %s is lost: %s", template.name, error)
