"""The rules, the dashboard and the metrics fit each other, asked of the real Prometheus that scrapes a real server."""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.operator.conftest import PASSWORD, PROGRAM, CommandLine, Process, environment
from tests.servers import PostgreSQL, Valkey, free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus"
DASHBOARD = json.loads((DEPLOY / "grafana" / "usermgmt.json").read_text(encoding="utf-8"))
TOKEN = "a-token-that-only-prometheus-has"
PATIENCE = 60.0
ANSWERED = "usermgmt_requests_total{route!='/metrics'}"
READS = 12


def found(program: str) -> str:
    """Where a program is; without it the test fails, since nothing would be known."""
    path = shutil.which(program)
    if path is None:
        pytest.fail(f"{program} is not here: apt install prometheus")
    return path


def promtool(*words: str, cwd: Path = RULES) -> str:
    done = subprocess.run([found("promtool"), *words], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_configuration_and_the_rules():
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    assert "SUCCESS" in promtool("check", "rules", "alerts.yml")


def test_each_alert_is_raised_when_it_should_be_and_not_before():
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")
    named = re.findall(r"alert: (\w+)", (RULES / "alerts.yml").read_text(encoding="utf-8"))
    tested = re.findall(r"alertname: (\w+)", (RULES / "alerts_test.yml").read_text(encoding="utf-8"))
    assert sorted(tested) == sorted([*named, *named])  # once raised, once not


@dataclass
class Scraped:
    """A Prometheus that has scraped a server of two workers which people have used."""

    prometheus: str
    url: str
    requests: int = 0

    def ask(self, path: str, **query: str) -> Any:
        """What Prometheus answers."""
        with urllib.request.urlopen(f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(query)}") as response:
            document = json.load(response)
        assert document["status"] == "success", document
        return document["data"]

    def value(self, expression: str) -> list[dict[str, Any]]:
        """What an expression gives now."""
        result: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return result

    def until(self, expression: str) -> None:
        """Wait until an expression gives something."""
        deadline = time.monotonic() + PATIENCE
        while not self.value(expression):
            assert time.monotonic() < deadline, expression
            time.sleep(0.1)  # until it has scraped and evaluated again

    def call(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """Call the server."""
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        self.requests += 1
        try:
            with urllib.request.urlopen(request) as response:
                answer = response.read()
                return response.status, json.loads(answer) if answer else None
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def scraped(
    postgresql: PostgreSQL, valkey_server: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scraped]:
    folder = tmp_path_factory.mktemp("prometheus")
    name = f"m{os.urandom(6).hex()}"
    line = CommandLine(environment(postgresql.create(name, template="template")))
    line.create("ada", "--role", "admin")
    management = free_port()
    variables = environment(
        line.environ["USERMGMT_DATABASE__URL"],
        server__workers="2",
        server__management_bind=f"127.0.0.1:{management}",
        metrics__enabled="true",
        valkey__url=valkey_server.url,
        limits__unknown="1/h",
        throttle__account="2/15m",
        audit__seal_interval="500ms",
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("USERMGMT_")}
    with ExitStack() as stack:
        server = stack.enter_context(Program([PROGRAM, "serve", "--port", "0"], {**plain, **variables}, folder))
        url = json.loads(Process(server).wait_for('"serving"'))["url"]
        port = _configured(folder, management)
        command = [
            found("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        stack.enter_context(Program(command, plain, folder))
        seen = Scraped(f"http://127.0.0.1:{port}", url)
        _await(f"http://127.0.0.1:{port}/-/ready")
        seen.until('up{job="usermgmt"} == 1')
        use(seen)
        seen.until(f"sum({ANSWERED}) >= {seen.requests}")
        seen.until("min(count_over_time(usermgmt_requests_total[1m])) > 3")
        seen.until("usermgmt_chore_last_success_timestamp_seconds{chore='audit_samples'}")
        yield seen


def _configured(folder: Path, management: int) -> int:
    """The configuration that is shipped, but for the target and the interval; the port to listen on."""
    shipped = (RULES / "prometheus.yml").read_text(encoding="utf-8")
    targets, interval = '["app1:9100", "app2:9100"]', "15s"
    assert targets in shipped
    ours = shipped.replace(targets, f'["127.0.0.1:{management}"]').replace(interval, "1s")
    (folder / "prometheus.yml").write_text(ours, encoding="utf-8")
    shutil.copy(RULES / "alerts.yml", folder)
    return free_port()


class Program:
    """A process that ends with the block."""

    def __init__(self, command: list[str], environ: dict[str, str], cwd: Path) -> None:
        self._log = (cwd / f"{Path(command[0]).name}.log").open("w")
        self._popen = subprocess.Popen(
            command, env=environ, cwd=cwd, stdout=subprocess.PIPE, stderr=self._log, stdin=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> "subprocess.Popen[str]":
        return self._popen

    def __exit__(self, *_: object) -> None:
        self._popen.terminate()
        self._popen.wait(timeout=PATIENCE)
        assert self._popen.stdout is not None
        self._popen.stdout.close()
        self._log.close()


def _await(url: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            assert time.monotonic() < deadline, url
            time.sleep(0.05)  # it does not listen yet


def use(seen: Scraped) -> None:
    """Do what people do, and what they should not."""
    credentials = {"username": "ada", "password": PASSWORD}
    status, tokens = seen.call("POST", "/api/auth/login", credentials)
    assert status == 200
    for _ in range(READS):
        assert seen.call("GET", "/api/users/me", token=tokens["access_token"])[0] == 200
    assert seen.call("GET", "/api/users", token=tokens["access_token"])[0] == 200
    assert seen.call("GET", "/api/users/me", token="x.y.z")[0] == 401
    guesses = [seen.call("POST", "/api/auth/login", {**credentials, "username": "bob"})[0] for _ in range(4)]
    assert guesses == [401, 401, 429, 429]
    status, tokens = seen.call("POST", "/api/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    assert status == 200
    assert [seen.call("GET", "/nowhere")[0] for _ in range(2)] == [404, 429]
    assert seen.call("POST", "/api/auth/logout", token=tokens["access_token"])[0] == 204


def expressions() -> list[str]:
    """Those of the alerts and of the dashboard, as Grafana would ask them."""
    alerts = re.findall(r"expr: (.*)", (RULES / "alerts.yml").read_text(encoding="utf-8"))
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*alerts, *(shown.replace("$instance", ".*").replace("$__rate_interval", "1m") for shown in panels)]


def test_every_metric_that_is_asked_for_is_told(scraped: Scraped):
    told = set(scraped.ask("label/__name__/values"))
    used = {name for each in expressions() for name in re.findall(r"\busermgmt_[a-z_]+", each)}
    assert len(used) > 20
    assert used - told == set()


def test_every_panel_shows_something(scraped: Scraped):
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
            assert scraped.value(expression), (panel["title"], expression)


def test_every_alert_is_evaluated_and_none_is_raised(scraped: Scraped):
    scraped.until("prometheus_rule_group_iterations_total > 1 or vector(1)")
    (group,) = scraped.ask("rules")["groups"]
    assert {rule["name"]: (rule["health"], rule["state"]) for rule in group["rules"]} == {
        rule["name"]: ("ok", "inactive") for rule in group["rules"]
    }
    assert len(group["rules"]) >= 13


def test_what_two_workers_counted_is_one_sum(scraped: Scraped):
    def number(expression: str) -> float:
        ((_, value),) = [each["value"] for each in scraped.value(expression)]
        return float(value)

    assert number("usermgmt_workers") == 2
    assert number(f"sum({ANSWERED})") == scraped.requests
    assert number('usermgmt_requests_total{route="/api/users/<user_ref:user_id>",status="200"}') == READS
    assert number("usermgmt_throttle_refused_total{kind='account'}") == 2
    assert number("usermgmt_budget_requests_total{budget='unknown',outcome='refused'}") == 1
    assert number("usermgmt_sessions_opened_total") == 1
    assert number("usermgmt_sessions_revoked_total{reason='signed_out'}") == 1
    assert number("usermgmt_refreshes_total{outcome='new'}") == 1
    assert number("usermgmt_audit_chain_broken") == 0
    assert number("count(usermgmt_build_info)") == 1
    scraped.until("usermgmt_audit_last_seal_timestamp_seconds > 0")
