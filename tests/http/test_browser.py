"""In a real browser: nothing that a user typed is ever run, and the documentation page keeps its own policy.

Chromium is taken from the machine (`CHROMIUM` names one); without one these tests are reported as skipped, unless
`NEEDS_BROWSER` demands them.
"""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import listening
from tests.people import PASSWORD, Person, Server

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=4000",
    "--enable-logging=stderr",
    "--v=0",
)
RUN = "document.title='run'"
SCRIPT = f'<script>{RUN}</script><img src=x onerror="{RUN}"><svg onload="{RUN}">'
needs_browser = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("NEEDS_BROWSER"), reason="no Chromium on this machine"
)


@pytest.fixture
def flags() -> dict[str, Any]:
    return {"docs.enabled": True}


def seen(url: str, folder: Path) -> tuple[str, str]:
    """What the page is after its scripts have run, and what the browser said about it."""
    assert CHROMIUM is not None, "no Chromium on this machine"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, done.stderr


@needs_browser
async def test_no_answer_runs_what_somebody_typed(server: Server, admin: Person, tmp_path: Path):
    made = await admin.post(
        "/api/users",
        json={
            "username": "mallory",
            "email": "mallory@example.com",
            "password": PASSWORD,
            "display_name": SCRIPT[:100],
            "attributes": {"bio": SCRIPT, SCRIPT: 1},
        },
    )
    assert made.status_code == 201
    async with listening(server.app) as port:
        for path in (
            f"/api/users/{SCRIPT}",
            f"/{SCRIPT}",
            f"/api/users?q={SCRIPT}",
            f"/problems/{SCRIPT}",
            f"/docs/{SCRIPT}",
            "/openapi.json",
        ):
            page, _ = await asyncio.to_thread(seen, f"http://127.0.0.1:{port}{path}", tmp_path / "profile")
            assert "<title>run" not in page, path
            assert 'onerror="document' not in page.replace("&quot;", '"') or "<pre" in page, path


@needs_browser
async def test_the_documentation_page_works_within_its_policy(server: Server, tmp_path: Path):
    async with listening(server.app) as port:
        page, said = await asyncio.to_thread(seen, f"http://127.0.0.1:{port}/docs", tmp_path / "profile")
    assert "/api/auth/login" in page, "the page lists the routes once its script has run"
    assert "Content Security Policy" not in said
    assert "Refused to" not in said


async def test_no_answer_is_a_page_but_the_documentation(server: Server, admin: Person):
    for path in (f"/api/users?q={SCRIPT}", "/api/users", "/nowhere", "/api/audit", "/.well-known/jwks.json"):
        response = await admin.get(path)
        assert "html" not in response.headers["Content-Type"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert json.loads(await response.get_data())
