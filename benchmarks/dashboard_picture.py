"""The dashboard of `deploy/grafana` drawn without Grafana: each panel's expressions asked of a real Prometheus.

`python -m benchmarks.dashboard_picture` starts PostgreSQL, a server of two workers and Prometheus, has people use the
server for some minutes, and draws what Prometheus answers for each panel as SVG, of which a headless Chromium takes the
picture. Lines, titles and legends are those of the dashboard; fonts and colours are not Grafana's. Needs `prometheus`
and `chromium`.
"""

import argparse
import html
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import server
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[1]
DASHBOARD = ROOT / "deploy" / "grafana" / "usermgmt.json"
PICTURE = ROOT / "docs" / "pictures" / "dashboard.png"
COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#f2495c", "#b877d9", "#37872d", "#8ab8ff", "#ffa6b0", "#c8f2c2")
WIDTH, HEIGHT = 372, 176
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 30, 44
USERS = 60
CALLERS = 4
SCALES = {"s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")), "bytes": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))}
SUFFIX = {"reqps": "/s", "ops": "/s", "short": ""}


@dataclass(frozen=True)
class Line:
    """One series of a panel."""

    name: str
    points: list[tuple[float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long people use the server")
    parser.add_argument("--to", type=Path, default=PICTURE, help="where the picture goes")
    parser.add_argument("--prometheus", help="draw from this Prometheus, and start nothing")
    options = parser.parse_args()
    if options.prometheus:
        draw(options.prometheus, options.minutes * 60, options.to)
        return
    with used_server(options.minutes * 60) as prometheus:
        draw(prometheus, options.minutes * 60, options.to)


@contextmanager
def used_server(seconds: float) -> Iterator[str]:
    """A Prometheus that has seen a server being used."""
    with server.database("postgresql") as url, tempfile.TemporaryDirectory(prefix="usermgmt-picture-") as folder:
        management = free_port()
        environ = server.environment(
            url,
            metrics__enabled="true",
            server__management_bind=f"127.0.0.1:{management}",
            server__workers="2",
            throttle__network="1000000/m",
        )
        server.prepare(environ, USERS)
        with server.serving(environ) as target, scraping(Path(folder), management) as prometheus:
            use(target, seconds)
            time.sleep(3)
            yield prometheus


@contextmanager
def scraping(folder: Path, management: int) -> Iterator[str]:
    """Prometheus with the shipped configuration, but for the target and the interval."""
    shipped = (ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8")
    ours = shipped.replace('["app1:9100", "app2:9100"]', f'["127.0.0.1:{management}"]').replace("15s", "2s")
    (folder / "prometheus.yml").write_text(ours, encoding="utf-8")
    shutil.copy(ROOT / "deploy/prometheus/alerts.yml", folder)
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def use(target: server.Target, seconds: float) -> None:
    """People who sign in, look, change, refresh and leave, more of them in the middle, and one who guesses."""
    ends = time.monotonic() + seconds
    threads = [threading.Thread(target=_person, args=(target, number, ends)) for number in range(CALLERS)]
    threads.append(threading.Thread(target=_guesser, args=(target, ends - seconds * 0.6, ends - seconds * 0.4)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _person(target: server.Target, number: int, ends: float) -> None:
    chance = random.Random(number)
    began = time.monotonic()
    while time.monotonic() < ends:
        tokens = _tokens(
            target, "login", {"username": f"user{chance.randrange(1, USERS)}", "password": server.PASSWORD}
        )
        if tokens is None:
            continue
        for _ in range(chance.randrange(10, 40)):
            share = (time.monotonic() - began) / (ends - began)
            time.sleep(chance.expovariate(4 + 24 * math.sin(math.pi * min(1.0, share))))
            _look(target, tokens["access_token"], chance)
        tokens = _tokens(target, "refresh", {"refresh_token": tokens["refresh_token"]})
        if tokens is not None and chance.random() < 0.5:
            _quietly(target, "POST", "/api/auth/logout", None, tokens["access_token"])


def _tokens(target: server.Target, act: str, body: dict[str, str]) -> Any:
    """What signing in or refreshing gives; None, after a moment, when the server asks to come back."""
    try:
        return target.call("POST", f"/api/auth/{act}", body)
    except urllib.error.HTTPError:
        time.sleep(1)
        return None


def _look(target: server.Target, token: str, chance: random.Random) -> None:
    kind = chance.random()
    if kind < 0.8:
        _quietly(target, "GET", "/api/users/me", None, token)
    elif kind < 0.93:
        _quietly(target, "PUT", "/api/users/me", {"display_name": f"Somebody {chance.randrange(99)}"}, token)
    else:
        _quietly(target, "GET", "/api/users", None, token)  # 403: they may not


def _guesser(target: server.Target, begins: float, ends: float) -> None:
    time.sleep(max(0.0, begins - time.monotonic()))
    while time.monotonic() < ends:
        _quietly(target, "POST", "/api/auth/login", {"username": "admin", "password": "guess"}, None)
        time.sleep(0.2)


def _quietly(target: server.Target, method: str, path: str, body: dict[str, str] | None, token: str | None) -> None:
    """A call whose refusal is part of the picture."""
    try:
        target.call(method, path, body, token)
    except (urllib.error.HTTPError, json.JSONDecodeError):
        return


def draw(prometheus: str, seconds: float, to: Path) -> None:
    """Ask for every panel and take the picture."""
    ends = time.time()
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    drawn = [_panel(panel, lines_of(prometheus, panel, ends - seconds, ends), ends - seconds, ends) for panel in panels]
    rows = (len(drawn) + 2) // 3
    width, height = 3 * (WIDTH + 10) + 10, rows * (HEIGHT + 10) + 10
    page = f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style><main>{''.join(drawn)}</main>"
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="usermgmt-picture-") as folder:
        path = Path(folder) / "page.html"
        path.write_text(page, encoding="utf-8")
        command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"]
        command += [f"--window-size={width},{height}", f"--screenshot={to}", f"--user-data-dir={folder}/profile"]
        subprocess.run([*command, path.as_uri()], check=True, capture_output=True)
    print(f"{to}: {to.stat().st_size // 1024} KiB")


def lines_of(prometheus: str, panel: dict[str, Any], begins: float, ends: float) -> list[Line]:
    """What a panel shows."""
    found = []
    for target in panel["targets"]:
        expression = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "20s")
        query = {"query": expression, "start": begins, "end": ends, "step": max(2.0, (ends - begins) / 150)}
        with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{urllib.parse.urlencode(query)}") as answer:
            result = json.load(answer)["data"]["result"]
        for series in result:
            points = [(float(at), float(value)) for at, value in series["values"] if math.isfinite(float(value))]
            name = target["legendFormat"]
            for label, value in series["metric"].items():
                name = name.replace("{{" + label + "}}", value)
            if points:
                found.append(Line(name, points))
    return found


def _panel(panel: dict[str, Any], lines: Sequence[Line], begins: float, ends: float) -> str:
    """One panel as SVG."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    most = _round(max((value for line in lines for _, value in line.points), default=0.0) or 1.0, unit)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(at: float, value: float) -> str:
        x = LEFT + (at - begins) / (ends - begins) * (right - LEFT)
        return f"{x:.1f},{bottom - value / most * (bottom - TOP):.1f}"

    parts = [
        f'<svg width="{WIDTH}" height="{HEIGHT}"><text x="12" y="19" class="t">{html.escape(panel["title"])}</text>'
    ]
    for step in range(5):
        y = bottom - step / 4 * (bottom - TOP)
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" class="a e">{_shown(most * step / 4, most, unit)}</text>')
    for step in range(4):
        x, ago = LEFT + step / 3 * (right - LEFT), (ends - begins) * (1 - step / 3)
        label = "now" if step == 3 else f"-{ago / 60:.1f} min"
        parts.append(f'<text x="{x}" y="{bottom + 14}" class="a {"e" if step == 3 else ""}">{label}</text>')
    for line, colour in zip(lines, COLOURS * 9, strict=False):
        points = " ".join(place(at, value) for at, value in line.points)
        parts.append(f'<polyline points="{points}" stroke="{colour}"/>')
    return "".join([*parts, _legend(lines), "</svg>"])


def _legend(lines: Sequence[Line]) -> str:
    parts, x, y = [], 12.0, HEIGHT - 16
    for line, colour in zip(lines, COLOURS * 9, strict=False):
        name = line.name if len(line.name) < 40 else f"{line.name[:38]}…"
        wide = 22 + 5.6 * len(name)
        if x + wide > WIDTH:
            x, y = 12.0, y + 12
        if y > HEIGHT - 3:
            break
        parts.append(f'<rect x="{x}" y="{y - 6}" width="10" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="{y}" class="a">{html.escape(name)}</text>')
        x += wide
    return "".join(parts)


def _round(most: float, unit: str) -> float:
    """A little more than the highest value, such that a quarter of it reads well."""
    size = next((size for size, _ in SCALES.get(unit, ()) if most >= size), 1.0)
    step = most / size / 4
    digit = 10.0 ** math.floor(math.log10(step))
    return next(each for each in (1, 2, 2.5, 5, 10) if each * digit >= step) * digit * 4 * size


def _shown(value: float, most: float, unit: str) -> str:
    scales = SCALES.get(unit, ((1.0, SUFFIX.get(unit, "")),))
    size, name = next((scale for scale in scales if most >= scale[0]), scales[-1])
    return f"{value / size:.3g} {name}".replace(" /", "/").strip()


_STYLE = """body{margin:0;background:#111217;font-family:"DejaVu Sans",Helvetica,Arial,sans-serif}
main{display:grid;grid-template-columns:repeat(3,max-content);gap:10px;padding:10px}
svg{background:#181b1f;border:1px solid #2a2d33;border-radius:3px;box-sizing:border-box}
polyline{fill:none;stroke-width:1.5}line{stroke:#2a2d33}
.t{font-size:13px;fill:#d8d9da;font-weight:600}.a{font-size:9.5px;fill:#9fa3a8}.e{text-anchor:end}"""

if __name__ == "__main__":
    sys.exit(main())
