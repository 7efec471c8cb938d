"""Several workers on one socket: what dies comes back, what leaves loses no request, nobody keeps the whole alive."""

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.operator.calls import BODY, DIRECT, HEAD, answered, call, connection_to
from tests.operator.conftest import PATIENCE, Process, Start, children, environment, until
from tests.servers import free_port

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

WORKERS = 2
CALLERS = 6
CALLER_RESTS_SECONDS = 0.005  # so that workers that start have a processor too
BOTH = pytest.mark.parametrize("kind", ["hypercorn", "granian"])


@pytest.fixture
def serving(start: Start, database_url: str) -> Callable[..., tuple[Process, str]]:
    """Start a server of two workers with further settings; the process and its address."""

    def begin(**more: str) -> tuple[Process, str]:
        settings = {"limits__enabled": "false", "server__workers": str(WORKERS), **more}
        process = start("serve", "--port", "0", environ=environment(database_url, **settings))
        return process, json.loads(process.wait_for('"serving"'))["url"]

    return begin


Serving = Callable[..., tuple[Process, str]]


@contextmanager
def load(url: str, kind: str = "hypercorn") -> Iterator[list[str]]:
    """Callers almost without pause, each on a connection that it keeps while the server does; a line for each fault.

    Granian lets go of connections that it has taken and not read: there a caller repeats, once, as clients do.
    """
    faults: list[str] = []
    ended = threading.Event()
    parts = urlsplit(url)

    def call_on() -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
        may_repeat = kind == "granian"
        while not ended.is_set():
            try:
                connection.request("GET", "/health/live")
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    faults.append(str(response.status))
                ended.wait(CALLER_RESTS_SECONDS)
            except ConnectionRefusedError:  # nobody took it: the server has ended
                break
            except http.client.RemoteDisconnected as error:
                if not may_repeat:
                    faults.append(repr(error))
                may_repeat = False
                connection.close()
            except (OSError, http.client.HTTPException) as error:
                faults.append(repr(error))
                connection.close()
        connection.close()

    callers = [threading.Thread(target=call_on) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    try:
        yield faults
    finally:
        ended.set()
        for caller in callers:
            caller.join()


def test_each_worker_serves_and_all_end_together(serving: Serving) -> None:
    process, url = serving()
    workers = children(process)
    assert len(workers) == WORKERS
    assert call(f"{url}/health/ready")[0] == 200
    assert process.end(signal.SIGTERM) == 0
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []
    assert process.errors() == ""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@BOTH
def test_a_worker_that_dies_or_hangs_is_replaced(serving: Serving, number: signal.Signals, kind: str) -> None:  # M11
    process, url = serving(server__worker_timeout="2s", server__server=kind)
    before = children(process)
    victim = min(before)
    os.kill(victim, number)
    process.wait_for('"worker_died"')
    process.wait_for('"worker_ready"')
    assert len(children(process)) == WORKERS
    assert children(process) & before == before - {victim}
    assert call(f"{url}/health/live")[0] == 200
    assert process.end(signal.SIGTERM) == 0


@BOTH
def test_workers_count_together_and_what_a_dead_one_counted_stays(serving: Serving, kind: str) -> None:
    port = free_port()
    bind = f"127.0.0.1:{port}"
    process, url = serving(metrics__enabled="true", server__management_bind=bind, server__server=kind)

    def told(name: str) -> float:
        with DIRECT.open(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as response:
            found = re.search(rf"^usermgmt_{re.escape(name)} (\S+)$", response.read().decode(), re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    series = 'requests_total{method="GET",route="/api/users/<user_ref:user_id>",status="401"}'
    until(lambda: told("workers") == WORKERS)
    for _ in range(40):  # each on a connection of its own, so that both workers have some
        assert call(f"{url}/api/users/me")[0] == 401
    assert told(series) == 40
    os.kill(min(children(process)), signal.SIGKILL)
    process.wait_for('"worker_died"')
    process.wait_for('"worker_ready"')
    until(lambda: told("workers") == WORKERS)
    assert told(series) == 40
    assert call(f"http://127.0.0.1:{port}/api/users/me")[0] == 404
    assert process.end(signal.SIGTERM) == 0


def test_signals_to_the_whole_group_are_the_parents(serving: Serving) -> None:
    process, _ = serving()
    workers = children(process)
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGHUP)
    time.sleep(0.5)  # in which whoever obeyed would be gone
    assert children(process) == workers
    assert process.end(signal.SIGINT) == 0


@BOTH
def test_a_reload_replaces_every_worker_and_no_request_fails(serving: Serving, kind: str) -> None:
    process, url = serving(server__server=kind)
    before = children(process)
    with load(url, kind) as faults:
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for('"worker_ready"')
        process.popen.send_signal(signal.SIGHUP)  # whoever began before this one goes too
        for _ in range(WORKERS):
            process.wait_for('"worker_ready"')
        until(lambda: not children(process) & before and len(children(process)) == WORKERS)
    assert faults == []
    assert process.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("dies", [False, True])
def test_a_second_reload_replaces_the_successor_that_the_first_began(serving: Serving, dies: bool) -> None:
    process, url = serving()
    before = children(process)
    process.popen.send_signal(signal.SIGHUP)
    until(lambda: len(children(process)) > WORKERS)
    first = children(process)
    process.popen.send_signal(signal.SIGHUP)
    process.wait_for('"reloading"')
    process.wait_for('"reloading"')
    if dies:
        for pid in first - before:
            os.kill(pid, signal.SIGKILL)
    until(lambda: not children(process) & (before | first) and len(children(process)) == WORKERS)
    assert call(f"{url}/health/live")[0] == 200
    assert process.end(signal.SIGTERM) == 0


def test_workers_that_die_while_a_reload_would_replace_them_are_no_end_of_it(serving: Serving) -> None:
    process, url = serving()
    before = children(process)
    process.popen.send_signal(signal.SIGHUP)
    until(lambda: len(children(process)) > WORKERS)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not children(process) & before and len(children(process)) == WORKERS)
    for _ in range(WORKERS):
        process.wait_for('"worker_ready"')
    assert call(f"{url}/health/live")[0] == 200
    assert process.end(signal.SIGTERM) == 0


@BOTH
def test_an_end_under_load_loses_no_request(serving: Serving, kind: str) -> None:
    process, url = serving(server__drain_delay="1s", server__server=kind)
    with load(url, kind) as faults:
        time.sleep(0.5)  # until the load is at work
        assert process.end(signal.SIGTERM) == 0
    assert faults == []


def test_readiness_says_so_on_every_worker_before_the_socket_closes(serving: Serving) -> None:
    process, url = serving(server__drain_delay="3s")
    process.popen.send_signal(signal.SIGTERM)
    for _ in range(1 + WORKERS):  # the parent says so too
        process.wait_for("draining")
    assert {call(f"{url}/health/ready")[0] for _ in range(10)} == {503}
    assert process.end() == 0


def test_what_a_client_leaves_open_keeps_nobody_alive(serving: Serving) -> None:
    process, url = serving(server__graceful_timeout="1s", server__request_timeout="1h")
    held = [connection_to(url) for _ in range(20)]
    for connection in held:
        connection.sendall(HEAD + BODY[:-5])
    idle = connection_to(url)
    call(f"{url}/health/live")
    started = time.monotonic()
    assert process.end(signal.SIGTERM) == 0
    assert time.monotonic() - started < PATIENCE / 2
    for connection in (*held, idle):
        connection.close()


def test_a_second_signal_ends_at_once(serving: Serving) -> None:
    process, url = serving(server__graceful_timeout="1h", server__request_timeout="1h")
    with connection_to(url) as held:
        held.sendall(HEAD + BODY[:-5])
        call(f"{url}/health/live")
        process.popen.send_signal(signal.SIGTERM)
        process.wait_for("draining")
        assert process.end(signal.SIGTERM) == 128 + signal.SIGTERM


def test_workers_do_not_outlive_their_parent(serving: Serving) -> None:
    process, url = serving()
    workers = children(process)
    with connection_to(url) as connection:
        connection.sendall(HEAD + BODY[:-5])
        call(f"{url}/health/live")
        process.popen.kill()
        process.popen.wait()
        connection.sendall(BODY[-5:])
        assert answered(connection)[0] == 401  # what came in is still answered
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def test_an_end_in_the_middle_of_a_reload_waits_for_nobody(serving: Serving) -> None:
    process, url = serving(server__graceful_timeout="1h")
    with load(url) as faults:
        process.popen.send_signal(signal.SIGHUP)
        until(lambda: len(children(process)) > WORKERS)
        started = time.monotonic()
        assert process.end(signal.SIGTERM) == 0
        assert time.monotonic() - started < PATIENCE / 4
    assert faults == []


def test_a_reload_waits_for_long_requests(serving: Serving) -> None:
    process, url = serving(server__request_timeout="1h", server__graceful_timeout="1h")
    before = children(process)
    with ExitStack() as stack:
        held = [stack.enter_context(connection_to(url)) for _ in range(10)]
        for connection in held:
            connection.sendall(HEAD + BODY[:-5])
        call(f"{url}/health/live")
        process.popen.send_signal(signal.SIGHUP)
        for _ in range(WORKERS):
            process.wait_for('"worker_ready"')
        assert before & children(process)
        for connection in held:
            connection.sendall(BODY[-5:])
            assert answered(connection)[0] == 401
    until(lambda: not children(process) & before)
    assert process.end(signal.SIGTERM) == 0


def test_many_reloads_leave_nothing_behind_in_the_parent(serving: Serving) -> None:
    process, _ = serving()
    descriptors = Path(f"/proc/{process.popen.pid}/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(3):
        process.popen.send_signal(signal.SIGHUP)
        for _ in range(WORKERS):
            process.wait_for('"worker_ready"')
    until(lambda: len(children(process)) == WORKERS)
    until(lambda: len(list(descriptors.iterdir())) == before)
    assert process.end(signal.SIGTERM) == 0


def test_a_reload_with_settings_that_are_wrong_leaves_everything_as_it_was(serving: Serving, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("[docs]\nenabled = true\n")
    process, url = serving()
    before = children(process)
    settings.write_text('[logs]\nlevel = "loud"\n')
    process.popen.send_signal(signal.SIGHUP)
    process.wait_for("reload_failed")
    assert children(process) == before
    assert call(f"{url}/openapi.json")[0] == 200
    settings.write_text("[docs]\nenabled = false\n")
    process.popen.send_signal(signal.SIGHUP)
    until(lambda: not children(process) & before and len(children(process)) == WORKERS)
    assert call(f"{url}/openapi.json")[0] == 404
    settings.write_text("[nonsense]\n")
    for pid in children(process):
        os.kill(pid, signal.SIGKILL)
    assert process.end() == 78
    assert "nonsense" in process.errors()


@pytest.mark.parametrize("is_abstract", [False, True])
def test_a_service_manager_is_told(start: Start, database_url: str, tmp_path: Path, is_abstract: bool) -> None:
    place = f"@usermgmt-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    workers = 1 if is_abstract else WORKERS
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(place.replace("@", "\0"))
        manager.settimeout(PATIENCE)
        settings = environment(database_url, limits__enabled="false", server__workers=str(workers))
        told = {"NOTIFY_SOCKET": place, "WATCHDOG_USEC": "200000"}
        process = start("serve", "--port", "0", environ={**settings, **told})

        def says(line: str) -> None:
            while not re.fullmatch(line, manager.recv(200).decode()):
                pass

        says("READY=1")
        for _ in range(5):
            says("WATCHDOG=1")
        process.popen.send_signal(signal.SIGHUP)
        says(r"RELOADING=1\nMONOTONIC_USEC=\d+")
        says("READY=1")
        process.popen.send_signal(signal.SIGTERM)
        says("STOPPING=1")
        assert process.end() == 0


def test_counting_in_memory_and_a_file_are_for_one_worker(start: Start, database_url: str) -> None:
    in_memory = start("serve", "--workers", "2", environ=environment(database_url))
    assert in_memory.end() == 78
    assert "server.workers: must be 1: several workers count requests together only" in in_memory.errors()
    a_file = environment("sqlite:///a.db", limits__enabled="false", database__allow_sqlite="true")
    on_a_file = start("serve", "--workers", "2", environ=a_file)
    assert on_a_file.end() == 78
    assert "a SQLite file has one writer" in on_a_file.errors()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_ends_with_its_terminal(start: Start, database_url: str, workers: str) -> None:
    ours, theirs = os.openpty()
    settings = environment(database_url, server__workers=workers, limits__enabled="false")
    process = start("serve", "--port", "0", environ=settings, stdin=theirs)
    process.wait_for('"serving"')
    os.close(theirs)
    os.close(ours)
    assert process.end(signal.SIGHUP) == 0
