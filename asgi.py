"""The application for any ASGI server: `hypercorn asgi:app`. The only module with effects at import."""

from usermgmt.operator.startup import application

app = application()
