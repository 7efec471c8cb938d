"""How this machine reaches a server that listens on it."""

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to call what listens everywhere


def local_url(host: str, port: int, *, is_tls: bool = False) -> str:
    """The address to call for `server.host` and a port."""
    reached = ANY_ADDRESS.get(host, host)
    scheme = "https" if is_tls else "http"
    return f"{scheme}://[{reached}]:{port}" if ":" in reached else f"{scheme}://{reached}:{port}"
