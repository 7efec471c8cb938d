"""What `usermgmt doctor` finds on the way to clients and to Valkey: proxies, TLS, counters that are shared."""

from collections.abc import AsyncIterator
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from usermgmt.operator.console import counted
from usermgmt.operator.doctor_findings import Checklist, Finding, error, note, ok, warning
from usermgmt.operator.doctor_installation import Installation
from usermgmt.operator.doctor_settings_checks import problems_of
from usermgmt.storage.counters import ping

WIDEST = {4: 8, 6: 16}
"""The shortest prefix of a network that can be one's own proxies, by the version of IP."""
RENEW_BEFORE, RENEW_NOW = timedelta(days=30), timedelta(days=7)
LEAST_RSA_BITS = 2048

check = Checklist()


@check("proxy.trust")
async def only_own_proxies_are_trusted(installation: Installation) -> AsyncIterator[Finding]:
    """Forwarded addresses are believed of one's own proxies, and where there is a proxy they are believed."""
    network, server = installation.settings.network, installation.settings.server
    wide = [name for name in network.trusted_proxies if _is_wide(name)]
    for name in wide:
        yield error(
            f"network.trusted_proxies holds {name}: every client may choose the address it is taken for.",
            "List the addresses of your proxies only.",
        )
    is_https = server.public_url.startswith("https://")
    if is_https and not server.is_tls and not network.trusted_proxies:
        yield warning(
            "server.public_url is https, so a proxy is in front, but network.trusted_proxies is empty:"
            " all clients are one address to limits, rules and the record.",
            "Set it to the addresses that the proxy calls from, such as 127.0.0.1,::1.",
        )
    elif not wide:
        count = len(network.trusted_proxies)
        yield ok(
            f"Proxies are trusted in {counted(count, 'network')}."
            if count
            else "No proxy is trusted, and none is known."
        )


@check("proxy.encryption")
async def passwords_travel_encrypted(installation: Installation) -> AsyncIterator[Finding]:
    """Passwords do not travel in the clear between clients and the first machine of one's own."""
    server, proxies = installation.settings.server, installation.settings.network.trusted_proxies
    if server.is_tls or is_loopback(server.host) or server.public_url.startswith("https://"):
        yield ok("Connections are encrypted here or by a proxy, or come from this machine.")
    elif proxies:
        yield note(
            "Whether the proxy in front speaks TLS cannot be seen from here.", "Set server.public_url to its https URL."
        )
    else:
        yield warning(
            f"The server listens on {server.host} without TLS: passwords travel in the clear.",
            "Let a proxy speak TLS and listen on 127.0.0.1, or set server.tls_certificate and server.tls_key.",
        )


@check("tls.certificate")
async def certificate_is_good(installation: Installation) -> AsyncIterator[Finding]:
    """The certificate that is presented here is valid, for long enough, and for the public name."""
    server = installation.settings.server
    if not server.is_tls:
        yield ok("TLS does not end at this server.")
        return
    if problems_of(installation, "server.tls_certificate"):
        return  # `settings.valid` tells
    certificate = _first_certificate(server.tls_certificate)
    left = certificate.not_valid_after_utc - installation.now()
    told = f"The certificate {server.tls_certificate} ends on {certificate.not_valid_after_utc:%Y-%m-%d}"
    renew = "Renew it, then send SIGHUP to the server, which reads it again."
    if left <= timedelta(0):
        yield error(f"{told}: clients refuse it.", renew)
    elif left < RENEW_NOW:
        yield error(f"{told}, in {left.days} days.", renew)
    elif left < RENEW_BEFORE:
        yield warning(f"{told}, in {left.days} days.", renew)
    else:
        yield ok(f"{told}.")
    if certificate.not_valid_before_utc > installation.now():
        yield error(f"The certificate {server.tls_certificate} is not valid yet.", "Correct this machine's clock.")
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < LEAST_RSA_BITS:
        yield error(f"Its key has {key.key_size} bits.", f"Make one of at least {LEAST_RSA_BITS} bits, or P-256.")
    if (host := urlsplit(server.public_url).hostname) and not _is_for(certificate, host):
        yield error(f"It is not for {host}, the host of server.public_url.", "Get one that names it.")


@check("limits.shared")
async def workers_count_together(installation: Installation) -> AsyncIterator[Finding]:
    """Where several processes serve, they count requests together."""
    settings = installation.settings
    for problem in (problems := problems_of(installation, "server.workers")):
        yield error(str(problem), "Set valkey.url, or serve with one worker.")
    is_alone = settings.limits.enabled and not settings.valkey.url.get_secret_value()
    if is_alone and installation.instances > 1:
        yield warning(
            f"{installation.instances} instances count requests each for itself: budgets are that many times larger.",
            "Set valkey.url.",
        )
    elif not problems:
        yield ok(f"Requests are counted {'by this process alone' if is_alone else 'together, or not at all'}.")


@check("limits.valkey")
async def valkey_answers(installation: Installation) -> AsyncIterator[Finding]:
    """Valkey answers, quickly enough to be waited for."""
    settings = installation.settings.valkey
    if not settings.url.get_secret_value() or problems_of(installation, "valkey.url"):
        yield ok("No Valkey is configured.")
        return
    meanwhile = "Meanwhile each process counts alone."
    try:
        seconds = await ping(settings.url.get_secret_value(), timedelta(seconds=2))
    except Exception as fault:  # noqa: BLE001 - whatever the client library raises
        yield warning(
            f"Valkey cannot be used ({type(fault).__name__}: {str(fault).partition(chr(10))[0]}). {meanwhile}",
            "Start it, or correct valkey.url, its password and its network.",
        )
        return
    told = f"Valkey answers within {seconds * 1000:.1f} ms"
    if seconds > settings.timeout.total_seconds():
        yield warning(f"{told}, more than valkey.timeout. {meanwhile}", "Move it closer, or raise valkey.timeout.")
    else:
        yield ok(f"{told}.")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _first_certificate(path: str) -> x509.Certificate:
    """The certificate that is presented; those after it are of its chain."""
    return x509.load_pem_x509_certificates(Path(path).read_bytes())[0]


def _is_wide(name: str) -> bool:
    network = ip_network(name)
    return network.prefixlen < WIDEST[network.version]


def _is_for(certificate: x509.Certificate, host: str) -> bool:
    """Whether a certificate names a host, perhaps by a wildcard (RFC 6125)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        parent = f"*.{host.partition('.')[2]}"
        return bool({host.lower(), parent.lower()} & {name.lower() for name in names.get_values_for_type(x509.DNSName)})
