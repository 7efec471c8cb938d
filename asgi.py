"""The application for any ASGI server: `hypercorn asgi:app`. It is made when this module is imported."""

from usermgmt.operator.startup import application

app = application()
