"""Finding the address of the client, and noticing once, loudly, when the settings of a proxy are wrong."""

from uuid import UUID

import structlog
from quart import Request

from usermgmt.security.address import TrustedProxies, canonical_address, parse_network
from usermgmt.settings import NetworkSettings

FORWARDING_HEADERS = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
ENOUGH_REQUESTS, ENOUGH_USERS = 1_000, 50

log = structlog.get_logger("usermgmt.network")


class Clients:
    """Tells who is at the other end, for one application."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._proxies = TrustedProxies(map(parse_network, settings.trusted_proxies), settings.forwarded_header)
        self._has_warned = False
        self._only_address: str | None = None
        self._requests = 0
        self._users: set[UUID] = set()

    def address_of(self, request: Request) -> str | None:
        """The canonical address of the client: the socket's peer, or whom a trusted proxy names."""
        peer = request.remote_addr
        if self._proxies.is_trusted(peer):
            return self._proxies.client_address(peer, request.headers.getlist(self._proxies.header))
        if not self._has_warned and any(name in request.headers for name in FORWARDING_HEADERS):
            self._warn("forwarding_header_not_believed", peer)
        return canonical_address(peer)

    def note(self, address: str | None, user_id: UUID) -> None:
        """Look at who called from where: many users behind the one address that ever calls are behind a proxy."""
        if self._has_warned or (self._requests and address != self._only_address):
            self._has_warned = True  # or there are several addresses, and nothing to warn of
            return
        self._only_address = address
        self._requests += 1
        if len(self._users) < ENOUGH_USERS:
            self._users.add(user_id)
        elif self._requests >= ENOUGH_REQUESTS:
            self._warn("all_clients_share_one_address", address)

    def _warn(self, event: str, address: str | None) -> None:
        self._has_warned = True
        log.warning(
            event,
            address=address,
            advice="if this is your reverse proxy, list it in network.trusted_proxies: limits, IP rules and the record "
            "take every client behind it for one",
        )
