"""Names inside and outside of a tunnel: whom a client asks that obeys its settings, and what it hears.

Clients send a name into the tunnel when they were given DNS servers and `split-dns` covers it, when there
is no `split-dns`, or when `tunnel-all-dns` says so.
"""

from collections.abc import Iterator, Sequence

from activities.drivers.daemon.ocserv.session import Session
from activities.drivers.resolving import Answers, ask_here
from policies.model.release_tests import Asked, Measurement, NameAddresses, Names


async def resolved(held: Sequence[Session], names: Names) -> list[Measurement]:
    """Return what the sessions say of these names; servers that were silent are asked by this host, too."""
    here: Answers = {}
    for session in held:
        silent = {pair for pair, answer in session.answers.items() if answer is None} - here.keys()
        servers, asked = ({pair[at] for pair in silent} for at in range(2))
        here |= await ask_here(sorted(servers), sorted(asked))
    let_in = [session for session in held if session.let_in]
    inside = [_inside(let_in, names, here)] if names.inside else []
    outside = [_outside(let_in, names)] if names.outside else []
    return inside + outside


def goes_inside(session: Session, name: str) -> str | None:
    """Return why a client of this session asks for the name inside its tunnel, None when it does not."""
    if not session.dns:
        return None
    if session.all_dns:
        return "tunnel-all-dns is true"
    if not session.split_dns:
        return "DNS servers were pushed, and no split-dns"
    covering = (domain for domain in session.split_dns if f".{name}".endswith(f".{domain.lstrip('*.')}"))
    found = next(covering, None)
    return None if found is None else f"split-dns has {found}"


def _inside(held: Sequence[Session], names: Names, here: Answers) -> Measurement:
    if not held:
        return Measurement(test=Asked.NAMES_INSIDE, said="nobody got in who could ask for a name")
    wrong, unknown = dict[str, str](), dict[str, str]()
    for session in held:
        for name, wanted in names.inside.items():
            problems, doubts = _problems(session, name, wanted, here)
            if problems:
                wrong[name] = "; ".join(problems)
            if doubts:
                unknown[name] = "; ".join(doubts)
    if wrong:
        said = "; ".join(wrong.values())
        return Measurement(test=Asked.NAMES_INSIDE, measured=len(wrong), said=said)
    if unknown:
        return Measurement(test=Asked.NAMES_INSIDE, said="; ".join(unknown.values()))
    servers = sorted({server for session in held for server in session.dns})
    said = f"{', '.join(names.inside)} answered through the tunnel by {', '.join(servers)}"
    return Measurement(test=Asked.NAMES_INSIDE, measured=0, said=said)


def _problems(
    session: Session, name: str, wanted: NameAddresses, here: Answers
) -> tuple[list[str], list[str]]:
    """Return what is wrong with the name in this session, and why nothing is known of it.

    A server that answers nobody says nothing about the instance; another one that answers is enough then.
    """
    if goes_inside(session, name) is None:
        pushed = f"split-dns has only {', '.join(session.split_dns)}"
        return [f"{name} is asked outside of the tunnel: {pushed if session.dns else 'no dns is pushed'}"], []
    wrong, silent = list[str](), list[str]()
    for server in session.dns:
        if (server, name) not in session.answers:
            return [], [f"{server} could not be asked for {name}: {session.words}"]
        if (answer := session.answers[server, name]) is not None:
            wrong += _wrong(server, name, answer, wanted)
        elif here.get((server, name)) is not None:
            wrong.append(f"{server} answers this host for {name}, and nobody in the tunnel")
        else:
            silent.append(server)
    if len(silent) < len(session.dns):
        return wrong, []
    said = f"{', '.join(silent)} answers for {name} neither in the tunnel nor to this host; mend it"
    return [], [said]


def _wrong(server: str, name: str, answer: NameAddresses, wanted: NameAddresses) -> Iterator[str]:
    if not answer:
        yield f"{server} has no address of {name}"
    elif wanted and (others := [one for one in answer if one not in wanted]):
        said, expected = (", ".join(map(str, addresses)) for addresses in (others, wanted))
        yield f"{server} answers {said} for {name}, which is to be {expected}"


def _outside(held: Sequence[Session], names: Names) -> Measurement:
    if not held:
        return Measurement(test=Asked.NAMES_OUTSIDE, said="nobody got in to whom DNS could be pushed")
    found = {name: why for session in held for name in names.outside if (why := goes_inside(session, name))}
    said = "; ".join(f"{name} is asked inside the tunnel: {why}" for name, why in found.items())
    outside = f"{', '.join(names.outside)} asked outside of the tunnel"
    return Measurement(test=Asked.NAMES_OUTSIDE, measured=len(found), said=said or outside)
