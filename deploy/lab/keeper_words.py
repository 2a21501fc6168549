"""What a standing lab's keeper understands and says; who types a command waits for no lab to be loaded."""

READY, FAILED = "ready: ", "failed: "
"""How the keeper's report ends."""

OF_A_GATEWAY = (
    "agent",
    "cut",
    "firewall",
    "steering",
    "disk",
    "forwarding",
    "filter",
    "size",
    "limits",
    "known-good",
)
OF_ALL = (
    "worker",
    "engine",
    "orchestrator",
    "ledger",
    "metrics",
    "accounts",
    "audit",
    "checkpoints",
    "trust",
    "index",
    "certificate",
    "chat",
)
KINDS = {
    "agent": "the gateway's agent is killed; its daemons go on",
    "cut": "the gateway is cut off from the orchestrator; its users are not",
    "firewall": "every table of the gateway's kernel is flushed, the steering table too",
    "steering": "every change of the gateway's steering table fails",
    "disk": "the agent's disk is full",
    "forwarding": "the gateway's kernel forwards no packets",
    "filter": "a rule of the gateway's packet filter drops what is forwarded",
    "size": "large packets of tunnels are swallowed on the gateway",
    "limits": "the host's own file bears no lease as long as plans ask for",
    "known-good": "the ledger has forgotten what the gateway goes back to",
    "worker": "the orchestrator's worker is killed",
    "engine": "the engine is killed",
    "orchestrator": "API, relay and worker are stopped; agents and gateways go on",
    "ledger": "the ledger is lost with its disk, checkpoints too; API, relay and worker have an empty one",
    "metrics": "Prometheus is killed",
    "accounts": "no gateway knows any account, as when a directory is away",
    "audit": "somebody changes an entry of the audit record behind penstock's back",
    "checkpoints": "the file of checkpoints ends in zeros, as the crash of a host leaves it",
    "trust": "nobody trusts who built the releases any more",
    "index": "the index of the channel has ended",
    "certificate": "a newer certificate lies on every host, and users see the old one",
    "chat": "the chat is away, and somebody's account there is in the wrong hands",
}
