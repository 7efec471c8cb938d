"""The address of a client in one canonical form, so that limits, rules and the record agree about who it is.

The address is the socket peer's. Only when the peer is a proxy that the settings trust is its header read, from the
right: each proxy appends the peer it saw, so what stands left of the first stranger is whatever the stranger wrote.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

UNKNOWN = "unknown"
IPV6_SOURCE_BITS = 64  # what a provider gives one customer; the addresses in it cost nothing
MAPPED_BITS = 96  # the prefix that IPv4 addresses have inside IPv6
MAX_HOPS = 32
REMEMBERED = 10_000
_WITH_PORT = re.compile(r"(?:\[([^\]]*)\]|([0-9.]+))(?::[0-9]{1,5})?", re.ASCII)
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_PARAMETER = re.compile(r'([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s";,]*))')


def canonical_address(peer: str | None) -> str | None:
    """The socket peer's address: an IPv4 address inside IPv6 is unfolded, a zone is dropped; None for no address."""
    parsed = parse_address(peer)
    return str(parsed) if parsed is not None else None


@functools.lru_cache(REMEMBERED)
def parse_address(text: str | None) -> IPv4Address | IPv6Address | None:
    """An address in canonical form, or None for text that is none."""
    if text is None:
        return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_network(text: str) -> Network:
    """A network by its CIDR; one of mapped IPv4 addresses is their IPv4 network. Raises `ValueError`, also when bits of
    a host are set.
    """
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.prefixlen >= MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - MAPPED_BITS))
    return network


@functools.lru_cache(REMEMBERED)
def network_of(address: str | None) -> str:
    """What is counted as one source: an IPv4 address, or the /64 of an IPv6 address."""
    parsed = parse_address(address)
    if parsed is None:
        return UNKNOWN
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    return str(ip_network((int(parsed), IPV6_SOURCE_BITS), strict=False))


class TrustedProxies:
    """Finds the client behind the proxies that the settings trust."""

    def __init__(self, networks: Iterable[Network], header: str) -> None:
        self._networks = tuple(networks)
        self.header = header

    def client_address(self, peer: str | None, values: Sequence[str]) -> str | None:
        """The client's address, given the socket peer and every line of the forwarding header.

        An untrusted peer is the client itself. Of a trusted one the right-most hop that is no trusted proxy is; where
        the header is missing, malformed or names nobody else, it is the peer, which fails closed: all who come that
        way share one address.
        """
        address = parse_address(peer)
        if address is None:
            return None
        if not self._is_trusted(address):
            return str(address)
        for hop in reversed(self._hops(", ".join(values))[-MAX_HOPS:]):
            seen = _hop_address(hop)
            if seen is None:
                break
            if not self._is_trusted(seen):
                return str(seen)
        return str(address)

    def is_trusted(self, peer: str | None) -> bool:
        """Whether a socket peer is one of the proxies."""
        address = parse_address(peer)
        return address is not None and self._is_trusted(address)

    def _is_trusted(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)

    def _hops(self, value: str) -> list[str]:
        """The hops in their order; an empty one stays, so that it ends the walk."""
        if self.header != "Forwarded":
            return [hop.strip() for hop in value.split(",")]
        return [_forwarded_for(element) for element in _ELEMENT.findall(value)]


def _forwarded_for(element: str) -> str:
    """The `for` of one element of Forwarded (RFC 7239, section 4), or an empty text."""
    found = [(quoted or plain) for name, quoted, plain in _PARAMETER.findall(element) if name.lower() == "for"]
    return re.sub(r"\\(.)", r"\1", found[0]) if len(found) == 1 else ""


def _hop_address(hop: str) -> IPv4Address | IPv6Address | None:
    """The address of a hop, with or without a port; None for names, `unknown` and anything malformed."""
    match = _WITH_PORT.fullmatch(hop)
    if match is not None:
        return parse_address(match.group(1) or match.group(2))
    return parse_address(hop)
