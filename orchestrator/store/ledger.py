"""The ledger: what was, what is allowed and what is good; the engine is the truth only for what runs."""

from orchestrator.store.gateway_results import GatewayResults
from orchestrator.store.plans import Plans
from orchestrator.store.proofs import Proofs
from orchestrator.store.quarantine import Quarantines
from orchestrator.store.releases import Releases
from orchestrator.store.rollouts import Rollouts
from orchestrator.store.trail import Trail


class Ledger(Releases, Rollouts, Plans, GatewayResults, Quarantines, Proofs, Trail):
    """The database behind every frontend: all of its books in one."""
