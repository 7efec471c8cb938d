"""`usermgmt healthcheck`: what a container asks about itself."""

import http.client
import json
import ssl
import urllib.error
import urllib.request

import click

from usermgmt.operator.addresses import local_url
from usermgmt.operator.configuration import operator_settings
from usermgmt.operator.console import Console, Refusal
from usermgmt.operator.grammar import command, pass_console

MAX_BYTES = 64 * 1024


@command()
@click.option("--url", help="What to ask, in place of /health/ready on server.host and server.port.")
@click.option("--timeout", type=click.FloatRange(min=0.1, max=60), default=3.0, show_default=True, help="In seconds.")
@pass_console
def healthcheck(console: Console, url: str | None, timeout: float) -> None:
    """Ask a running server whether it can serve: exit code 0 if it can, 1 if not. No proxy is used."""
    if url is None:
        settings = operator_settings(console).server
        url = f"{local_url(settings.host, settings.port, is_tls=settings.is_tls)}/health/ready"
    status, body = _ask(url, timeout)
    if status != 200:
        raise Refusal(f"{url} answered {status}: {body}", code="not_ready")
    console.show({"url": url, "status": status, "body": _parsed(body)}, f"{url} is ready.")


def _ask(url: str, timeout: float) -> tuple[int, str]:
    """The status and the body of the answer. Refused when there is none."""
    itself = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the certificate names the public host, which is not asked here
    itself.check_hostname, itself.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=itself))
    try:
        with opener.open(url, timeout=timeout) as response:
            return response.status, response.read(MAX_BYTES).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read(MAX_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise Refusal(f"{url} does not answer: {reason}", code="no_answer") from None


def _parsed(body: str) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return body
