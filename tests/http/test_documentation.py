"""The pages: strict policies, nothing from elsewhere, everything escaped, off when they shall be off."""

import hashlib
import re

import pytest

from usermgmt.errors import CATALOGUE, NotFound
from usermgmt.http.documentation import ASSETS


@pytest.fixture
def flags():
    return {"docs.enabled": True}


async def test_the_interactive_page_loads_only_from_here(server):
    response = await server.nobody().get("/docs")
    text = await response.get_data(as_text=True)
    assert response.status_code == 200
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"(?:src|href)=\"(?!/docs/|data:,)", text)
    assert not re.findall(r"<script(?![^>]*src=)", text)
    for path in re.findall(r"(?:src|href)=\"(/docs/[^\"]+)\"", text):
        assert (await server.nobody().get(path)).status_code == 200


async def test_every_page_has_the_strictest_policy_that_it_works_with(server):
    """`unsafe-inline` is not needed: Chromium reports no violation of these."""
    shared = {"default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"}
    own = {"script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'"}
    for path, more in (("/docs", own), ("/problems/not-found", {"img-src data:"})):
        policy = (await server.nobody().get(path)).headers["Content-Security-Policy"]
        assert set(policy.split("; ")) == shared | more


def test_nothing_in_the_style_is_fetched():
    style = (ASSETS / "swagger-ui.css").read_text(encoding="utf-8")
    assert "@import" not in style
    assert not re.findall(r"url\(\s*+[\"']?+(?!data:)[^)]{0,40}", style)


def test_vendored_assets_are_those_that_were_reviewed():
    listed = dict(reversed(line.split()) for line in (ASSETS / "SHA256SUMS").read_text().splitlines())
    for name, digest in listed.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest, name
    assert {path.name for path in ASSETS.iterdir()} - listed.keys() == {"SHA256SUMS", "README.md"}


@pytest.mark.parametrize("path", ["/docs/../../settings.py", "/docs/SHA256SUMS", "/docs/%2e%2e/x.js", "/docs/none.js"])
async def test_nothing_else_is_served_from_there(server, path):
    assert (await server.nobody().get(path)).status_code == 404


async def test_the_specification_is_served(server):
    response = await server.nobody().get("/openapi.json")
    assert response.status_code == 200
    assert response.mimetype == "application/json"
    assert (await response.get_json())["openapi"].startswith("3.1")


async def test_every_code_has_a_page(server):
    for code in (code for code in CATALOGUE if not code.startswith("test")):
        response = await server.nobody().get(f"/problems/{code.replace('_', '-')}")
        assert response.status_code == 200, code
        assert f"<code>{code}</code>" in await response.get_data(as_text=True)
        assert "unsafe" not in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("slug", ["none", "<script>alert(1)</script>", "%3Cscript%3E"])
async def test_an_unknown_code_has_none(server, slug):
    response = await server.nobody().get(f"/problems/{slug}")
    assert response.status_code == 404
    assert "<script>" not in await response.get_data(as_text=True)


async def test_what_an_error_says_is_escaped(server, monkeypatch):
    class Hostile(NotFound):
        """<script>meaning()</script> & more."""

        title = "<script>title()</script>"
        detail = '<img src=x onerror="detail()">'

    Hostile.code = "test_hostile"  # set afterwards, so that the catalogue has it for this test only
    monkeypatch.setitem(CATALOGUE, "test_hostile", Hostile)
    text = await (await server.nobody().get("/problems/test-hostile")).get_data(as_text=True)
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;meaning()&lt;/script&gt; &amp; more." in text


class TestSwitchedOff:
    @pytest.fixture
    def flags(self):
        return {"docs.enabled": False}

    @pytest.mark.parametrize("path", ["/docs", "/docs/init.js", "/openapi.json"])
    async def test_they_are_not_there(self, server, path):
        response = await server.nobody().get(path)
        assert response.status_code == 404
        assert response.mimetype == "application/problem+json"

    async def test_the_pages_of_error_codes_stay(self, server):
        assert (await server.nobody().get("/problems/not-found")).status_code == 200
