"""Paths: what keeps users' packets from passing through a gateway, decided from what its host measured."""

from collections.abc import Iterator, Sequence

from policies.model.path import PathFacts, PathFinding, TriedTunnel

NEARLY_FULL = 0.95
"""The share of the kernel's connections from which on new ones may be dropped."""


def findings_of(facts: PathFacts) -> tuple[PathFinding, ...]:
    """Return what was found, from the instance to the names that users ask for; the unknown is not well."""
    return tuple(_each(facts))


def _each(facts: PathFacts) -> Iterator[PathFinding]:
    yield _instances(facts)
    yield _steering(facts)
    yield from _forwarding(facts)
    yield _filter(facts)
    yield _covering(facts)
    yield _bans(facts)
    yield _back(facts)
    yield from _flushing(facts)
    yield _tracking(facts)
    for tried in facts.tried:
        yield _passing(facts, tried)
        yield _full_size(tried)
        yield _names(tried)


def _instances(facts: PathFacts) -> PathFinding:
    if facts.devices_down is None:
        return _unread("instances", "the tunnels' devices", "ip link")
    if facts.ended or facts.devices_down or not facts.running:
        wrong = [f"slot {slot} is to run and does not" for slot in facts.ended]
        wrong += [f"{device} is down" for device in facts.devices_down]
        mend = "restart the agent, which starts what ran before; the instance's log has its last words"
        return _wrong("instances", "; ".join(wrong) or "no instance runs", mend)
    return _well("instances", f"{', '.join(facts.running)} run, with their devices up")


def _steering(facts: PathFacts) -> PathFinding:
    if facts.steering is None:
        why = f": {facts.steering_unread}" if facts.steering_unread else ""
        said = f"the steering table cannot be read{why}; whether new users get in is not known"
        mend = "ask again in a minute; if it stays so, on the host: journalctl -u penstock-agent"
        return _wrong("steering", said, mend)
    if not facts.steering or facts.steered_to is None:
        mend = "start the agent: it loads its table again by itself; nothing else may flush it"
        return _wrong("steering", "the steering table is not loaded, so nobody new gets in", mend)
    if facts.steered_to not in facts.running:
        said = f"new sessions go to slot {facts.steered_to}, where nothing runs"
        return _wrong("steering", said, "penstock rollback, or restart the agent")
    return _well("steering", f"new sessions go to slot {facts.steered_to}")


def _forwarding(facts: PathFacts) -> Iterator[PathFinding]:
    kinds = {"IPv4": (facts.forwards4, "net.ipv4.ip_forward"), "IPv6": (facts.forwards6, _FORWARD6)}
    for kind, (forwards, key) in kinds.items():
        if forwards:
            yield _well("forwarding", f"the kernel forwards {kind}")
        elif forwards is None and kind == "IPv4":
            yield _unread("forwarding", f"whether the kernel forwards {kind}", f"sysctl {key}")
        elif forwards is False:
            said = f"the kernel does not forward {kind}"
            yield _wrong("forwarding", said, f"sysctl -w {key}=1, and keep it in /etc/sysctl.d")


_FORWARD6 = "net.ipv6.conf.all.forwarding"


def _filter(facts: PathFacts) -> PathFinding:
    if facts.drops is None:
        return _unread("packet filter", "the packet filter", "nft -j list ruleset")
    mend = "nft list ruleset; let the tunnels' devices through before whatever drops"
    return _unless(facts.drops, "packet filter", "no chain drops all packets of users", mend)


def _covering(facts: PathFacts) -> PathFinding:
    if facts.uncovered is None:
        why = f": {facts.uncovered_unread}" if facts.uncovered_unread else ""
        said = f"whether the packet filter treats users of all slots alike is not known{why}"
        return _wrong("slots' rules", said, "on the host: nft list ruleset")
    mend = "change the rule on the host, and keep it where the host loads its rules at boot"
    alike = "the packet filter treats users of all slots alike"
    return _unless(facts.uncovered, "slots' rules", alike, mend)


def _bans(facts: PathFacts) -> PathFinding:
    if facts.spared is None:
        return _unread("bans", "whether bans at the users' port hold at slots' ports", "nft list ruleset")
    mend = "ban on all ports, or by the port that users dial: docs/install.md, Bans and limits"
    return _unless(facts.spared, "bans", "no ban or limit holds at the users' port alone", mend)


def _back(facts: PathFacts) -> PathFinding:
    if facts.misrouted is None:
        return _unread("routes", "the routes", "ip route")
    mend = "ip route: take the other route away, or choose other pools"
    return _unless(facts.misrouted, "routes", "packets for users' addresses go to their tunnels", mend)


def _flushing(facts: PathFacts) -> Iterator[PathFinding]:
    if facts.flushes:
        said = (
            "/etc/nftables.conf has `flush ruleset`: a reload of nftables removes the steering table and cuts"
        )
        mend = "on the host, remove your own tables alone: docs/install.md, Reloads of the host's rules"
        yield _wrong("rules' reload", f"{said} users' TCP connections", mend)
    elif facts.flushes is False:
        yield _well("rules' reload", "a reload of nftables spares the steering table")


def _tracking(facts: PathFacts) -> PathFinding:
    if facts.tracked is None or not facts.trackable:
        return _well("connections", "the kernel does not count connections here")
    said = f"{facts.tracked} of {facts.trackable} connections are tracked"
    if facts.tracked >= facts.trackable * NEARLY_FULL:
        return _wrong("connections", f"{said}: new ones are dropped", "raise net.netfilter.nf_conntrack_max")
    return _well("connections", said)


def _passing(facts: PathFacts, tried: TriedTunnel) -> PathFinding:
    about = f"tunnel {tried.slot}"
    sent, back = tried.small
    if not tried.let_in or not sent:
        said = f"the probe's user does not get a tunnel: {tried.words or 'it said nothing'}"
        return _wrong(about, said, "the instance's log says why; penstock sessions shows which one serves")
    said = f"{back} of {sent} small pings to {facts.target} came back"
    if back == sent:
        return _well(about, said)
    if facts.target_is_here or facts.translates:
        mend = "look at what is WRONG above; else at the way behind this gateway"
        return _wrong(about, said, mend)
    if facts.translates is None:
        return _unread(about, f"{said}, and the packet filter", "nft -j list ruleset")
    said = f"{said}, and no rule translates users' addresses (NAT)"
    mend = "add a masquerade rule, or a route to the pools on the next router"
    return _wrong(about, said, mend)


def _full_size(tried: TriedTunnel) -> PathFinding:
    about = f"packet size {tried.slot}"
    sent, back = tried.full
    if not sent and tried.small[1]:
        return _untested(about, "the probe of this daemon sends no packets of full size")
    if not sent or not tried.small[1]:
        return _wrong(about, "it could not be tried: nothing small passes either", "mend what is WRONG above")
    said = f"{back} of {sent} pings of {tried.mtu} bytes came back"
    if back == sent:
        return _well(about, said)
    mend = "lower mtu in the settings, or let ICMP 'too big' through on the way"
    return _wrong(about, f"{said}, and small ones do: larger packets are swallowed on the way", mend)


def _names(tried: TriedTunnel) -> PathFinding:
    about = f"DNS {tried.slot}"
    if tried.dns is None:
        return _untested(about, "the probe of this daemon does not read which DNS servers users are given")
    if not tried.dns:
        return _well(about, "users are given no DNS server")
    if tried.dns_silent:
        said = f"{', '.join(tried.dns_silent)} answers nothing through the tunnel"
        return _wrong(about, said, "mend that server, or give users another one (dns in fleet.yaml)")
    return _well(about, f"{', '.join(tried.dns)} answer through the tunnel")


def _unless(wrong: Sequence[str], about: str, well: str, mend: str) -> PathFinding:
    """Return that all is well, unless something is wrong."""
    return _wrong(about, "; ".join(wrong), mend) if wrong else _well(about, well)


def _unread(about: str, what: str, command: str) -> PathFinding:
    """Return what is said where nobody knows: that is not well."""
    return _wrong(about, f"{what} could not be read", f"on the host, {command} says why")


def _untested(about: str, sentence: str) -> PathFinding:
    """Return what is shown where no test is made: it is not known, and no fault was found."""
    mend = "try it with a client of your own"
    return PathFinding(about=about, well=True, sentence=sentence, mend=mend, tested=False)


def _well(about: str, sentence: str) -> PathFinding:
    return PathFinding(about=about, well=True, sentence=sentence)


def _wrong(about: str, sentence: str, mend: str) -> PathFinding:
    return PathFinding(about=about, well=False, sentence=sentence, mend=mend)
