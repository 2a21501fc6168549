"""What OpenVPN sends its users in `push`: DNS servers, gateways and routes (openvpn(8))."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network

from activities.drivers.daemon.openvpn.config import Option, options_in
from activities.drivers.daemon.openvpn.user_files import pushed
from activities.drivers.daemon.template import lines_of
from policies.model.errors import BadInput
from policies.pushed import Network, Pushed

GATEWAYS = ("route-gateway", "route-ipv6-gateway")
ROUTES = ("route", "route-ipv6")
_A_ROUTE_OF_MASK = 2


def pushed_in(text: str) -> Sequence[Pushed]:
    """Return every address and network that clients are sent, of a configuration or a template.

    A word that is a placeholder or a name is left out. Nothing is returned of a text that OpenVPN refuses.
    """
    with suppress(BadInput):
        return tuple(_pushed(options_in("\n".join(lines_of(text)))))
    return ()


def _pushed(options: Sequence[Option]) -> Iterator[Pushed]:
    for option in options:
        if (sent := pushed(option)) is not None:
            for word, network in _networks(sent):
                yield Pushed(option.number, option.name, f"{sent.name} {word}".rstrip(), network)


def _networks(sent: Option) -> Iterator[tuple[str, Network]]:
    """Yield each address of a pushed option, with the word that says which one it is."""
    words = sent.words
    if sent.name == "dhcp-option" and words:
        yield from ((words[0], one) for one in _hosts(words[1:]))
    elif sent.name == "dns" and words[:1] == ("server",):
        yield from (("server", one) for one in _hosts(words[2:]))
    elif sent.name in GATEWAYS:
        yield from (("", one) for one in _hosts(words[:1]))
    elif sent.name in ROUTES:
        masked = sent.name == "route" and len(words) >= _A_ROUTE_OF_MASK
        with suppress(ValueError):
            yield "", ip_network(f"{words[0]}/{words[1]}" if masked else "".join(words[:1]), strict=False)
        yield from (("gateway", one) for one in _hosts(words[1 + (sent.name == "route") :][:1]))


def _hosts(words: Sequence[str]) -> Iterator[Network]:
    """Yield the words that are addresses, also with a port: `10.8.0.1:53` and `[fd08::1]:53`."""
    for word in words:
        bare = word.partition("]")[0].removeprefix("[") if word.startswith("[") else word
        bare = bare.partition(":")[0] if bare.count(":") == 1 else bare
        with suppress(ValueError):
            yield ip_network(ip_address(bare))
