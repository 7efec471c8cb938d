"""The application for any ASGI server: `hypercorn asgi:app`. The only module with effects at import."""

from usermgmt.app import create_app
from usermgmt.settings import load_settings

app = create_app(load_settings())
