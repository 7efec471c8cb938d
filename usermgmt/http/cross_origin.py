"""Cross-origin requests, answered by quart-cors; a request that names no origin does not pay for it."""

from quart import Quart, Response, request
from quart_cors import cors

from usermgmt.settings import CorsSettings

EXPOSED_HEADERS = ("ETag", "Location", "Link", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID")
ALLOWED_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "X-Request-ID")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ANY = "*"


def install(app: Quart, settings: CorsSettings) -> None:
    """Answer preflights and tell browsers which origins may read an answer. Call where the pipeline has it."""
    cors(
        app,
        allow_origin=list(settings.origins),
        allow_credentials=settings.credentials,
        allow_headers=ALLOWED_HEADERS,
        allow_methods=METHODS,
        expose_headers=EXPOSED_HEADERS,
        max_age=600,
    )
    answer = app.after_request_funcs[None].pop()

    @app.after_request
    async def allow(response: Response) -> Response:
        if "Origin" in request.headers:
            answered: Response = await app.ensure_async(answer)(response)
            return answered
        if ANY not in settings.origins:
            response.headers.add("Vary", "Origin")
        return response
