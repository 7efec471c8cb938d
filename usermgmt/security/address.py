"""The address of a client in one canonical form, so that limits, rules and the record agree about who it is."""

from ipaddress import IPv6Address, ip_address


def canonical_address(peer: str | None) -> str | None:
    """The socket peer's address: an IPv4 address inside IPv6 is unfolded, a zone is dropped; None for no address."""
    if peer is None:
        return None
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)
