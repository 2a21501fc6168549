"""notices.yaml as it is now: read again when it has changed; what was good counts while it is wrong."""

import threading
from pathlib import Path

from activities.drivers.notices.composing import sink_of
from activities.drivers.notices.port import Sink
from activities.files import load_own
from orchestrator.words.offers import spelled
from policies.model.errors import BadInput, Unknown
from policies.model.notice_rules import AnySink, ChatSink, NoticeRules
from policies.model.offer import Offer


class RulesFile:
    """The rules of one installation; safe to ask from several threads."""

    def __init__(self, path: Path) -> None:
        """Take the path; nothing is read yet."""
        self.path = path
        self._turn = threading.Lock()
        self._version: tuple[int, int, int] | None = None
        self._rules: NoticeRules | None = None
        self._wrong: BadInput | None = None

    def rules(self) -> NoticeRules | None:
        """Return what the file says, or said when it was good last; None when it never was."""
        with self._turn:
            version = self._found()
            if version is None or version != self._version:
                self._version = version
                try:
                    self._rules, self._wrong = load_own(self.path, NoticeRules), None
                except BadInput as wrong:
                    self._wrong = wrong
            return self._rules

    def wrong(self) -> BadInput | None:
        """Return what is wrong with the file, None when nothing is."""
        self.rules()
        return self._wrong

    def sink(self, name: str) -> Sink | None:
        """Return what tells this sink, None for one that asks by itself.

        Raises:
            Unknown: There is no such sink.
        """
        return sink_of(self._known(name), self.path.absolute().parent, _spell)

    def is_pushed(self, name: str) -> bool:
        """Return whether a worker tells this sink; False for one that asks by itself.

        Raises:
            Unknown: There is no such sink.
        """
        return not isinstance(self._known(name), ChatSink)

    def unready(self) -> dict[str, BadInput]:
        """Return the sinks that could tell nobody anything, each with what is wrong with a file of it."""
        found = dict[str, BadInput]()
        for name in sorted(self.pushed()):
            try:
                sink = self.sink(name)
                if sink is not None:
                    sink.ready()
            except BadInput as wrong:
                found[name] = wrong
        return found

    def pushed(self) -> frozenset[str]:
        """Return the sinks that are told, and do not ask by themselves."""
        rules = self.rules()
        sinks = rules.sinks if rules is not None else ()
        return frozenset(one.name for one in sinks if not isinstance(one, ChatSink))

    def _known(self, name: str) -> AnySink:
        rules = self.rules()
        known = {one.name: one for one in rules.sinks} if rules is not None else {}
        if name not in known:
            raise Unknown(f"there is no sink {name}; {self.path} has {', '.join(known) or 'none'}")
        return known[name]

    def _found(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _spell(offer: Offer) -> str:
    return spelled(offer.model_dump(mode="json"))
