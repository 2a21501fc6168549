"""The ledger: what was, what is allowed and what is good; the engine is the truth only for what runs."""

from orchestrator.store.agent_certificates import AgentCertificates
from orchestrator.store.approvals import Approvals
from orchestrator.store.certificates import Certificates
from orchestrator.store.changes import Changes
from orchestrator.store.chat import Chats
from orchestrator.store.drills import Drills
from orchestrator.store.ends import Ends
from orchestrator.store.evidence import EvidenceList
from orchestrator.store.follow_ups import FollowUps
from orchestrator.store.freezes import Freezes
from orchestrator.store.gateway_results import GatewayResults
from orchestrator.store.handovers import Handovers
from orchestrator.store.held_drains import HeldDrains
from orchestrator.store.host_records import HostRecords
from orchestrator.store.known_good import KnownGood
from orchestrator.store.logins import Logins
from orchestrator.store.notice_facts import NoticeFacts
from orchestrator.store.notices import Notices
from orchestrator.store.outbox import Outbox
from orchestrator.store.overview import Overview
from orchestrator.store.page_sessions import PageSessions
from orchestrator.store.plans import Plans
from orchestrator.store.proofs import Proofs
from orchestrator.store.quarantine import Quarantines
from orchestrator.store.rebuilding import Rebuilding
from orchestrator.store.releases import Releases
from orchestrator.store.requests import Requests
from orchestrator.store.revisions import Revisions
from orchestrator.store.signals import SignalBook
from orchestrator.store.sink_checks import SinkChecks
from orchestrator.store.states import GatewayStates
from orchestrator.store.stories import Stories
from orchestrator.store.tickets import Tickets
from orchestrator.store.tokens import Tokens
from orchestrator.store.trail import Trail
from orchestrator.store.turns import Turns
from orchestrator.store.watch_states import WatchStates


class Ledger(
    Releases,
    Changes,
    KnownGood,
    Rebuilding,
    Plans,
    Approvals,
    GatewayResults,
    GatewayStates,
    HostRecords,
    WatchStates,
    Quarantines,
    Freezes,
    Turns,
    HeldDrains,
    Proofs,
    EvidenceList,
    Ends,
    FollowUps,
    Drills,
    Tickets,
    SignalBook,
    Handovers,
    Stories,
    Tokens,
    Logins,
    PageSessions,
    Certificates,
    AgentCertificates,
    Chats,
    Requests,
    Revisions,
    Overview,
    Notices,
    Outbox,
    SinkChecks,
    NoticeFacts,
    Trail,
):
    """The database behind every frontend: all of its books in one."""
