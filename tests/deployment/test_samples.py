"""What `deploy/` holds for engines that are not here: it is whole, names what exists, and lets programs do little."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deployment.programs import DEPLOY, found
from tests.operator.conftest import PROGRAM
from usermgmt.settings import load_settings
from usermgmt.settings.sources import SettingsError

KUBERNETES = ("1.27", "1.36")
UNITS = ("usermgmt.service", "usermgmt@.service", "usermgmt-migrate.service")
EXAMPLE_KEY = "change-me-change-me-change-me-change-me"


def documents(path: Path) -> list[dict[str, Any]]:
    """What a YAML file holds."""
    return list(yaml.safe_load_all(path.read_text()))


def refusals(environ: dict[str, str], folder: Path) -> str:
    """What the settings say to variables; files that they name are made, with something fitting in them."""
    (folder / "url").write_text("postgresql://a:b@c/d")
    (folder / "valkey").write_text("valkey://:b@c:6379/0")
    (folder / "keys").write_text("k" * 40)
    given = {}
    for name, value in environ.items():
        kind = "valkey" if "VALKEY" in name else "url" if "URL" in name else "keys"
        given[name] = str(folder / kind) if name.endswith("_FILE") else value
    try:
        load_settings(environ=given, config=None)
    except SettingsError as error:
        return str(error)
    return ""


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each document for Kubernetes, with its file."""
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for document in documents(path):
            yield f"{path.name} {document['kind']}", document


def pod_templates() -> dict[str, dict[str, Any]]:
    """The pods that the manifests describe."""
    return {name: made["spec"]["template"] for name, made in manifests() if made["kind"] in {"Deployment", "Job"}}


class TestCompose:
    compose = yaml.safe_load((DEPLOY / "compose.yml").read_text())
    services = compose["services"]

    def test_every_part_is_there(self):
        parts = {"migrate", "app1", "app2", "nginx", "postgresql", "valkey", "prometheus", "grafana"}
        assert self.services.keys() == parts

    def test_every_file_it_names_exists_once_its_secrets_are_made(self, tmp_path: Path):
        shutil.copytree(DEPLOY, tmp_path / "deploy")
        for name in ("Containerfile", "pyproject.toml"):
            shutil.copy(DEPLOY.parent / name, tmp_path)
        prepare = [str(tmp_path / "deploy" / "compose" / "prepare.sh")]
        subprocess.run(prepare, check=True, capture_output=True)
        before = {path: path.read_bytes() for path in (tmp_path / "deploy" / "compose").rglob("*") if path.is_file()}
        subprocess.run(prepare, check=True, capture_output=True)
        assert {path: path.read_bytes() for path in before} == before  # made once
        sources = [secret["file"] for secret in self.compose["secrets"].values()]
        for service in self.services.values():
            volumes = [volume.split(":")[0] for volume in service.get("volumes", [])]
            sources += [volume for volume in volumes if volume.startswith(".")]
            assert {volume for volume in volumes if not volume.startswith(".")} <= self.compose["volumes"].keys()
            assert set(service.get("secrets", [])) <= self.compose["secrets"].keys()
            if "build" in service:
                context = tmp_path / "deploy" / service["build"]["context"]
                assert (context / service["build"]["dockerfile"]).is_file()
        assert len(sources) > 10
        for source in sources:
            assert (tmp_path / "deploy" / source).exists(), source
        secrets = tmp_path / "deploy" / "compose" / "secrets"
        assert secrets.stat().st_mode & 0o077 == 0
        url = (secrets / "database_url").read_text()
        assert (secrets / "database_password").read_text() in url

    def test_images_have_their_major_version(self):
        for service in self.services.values():
            assert re.fullmatch(r"[\w./-]+:v?\d+(\.\d+)*", service["image"]), service["image"]

    def test_variables_are_settings_and_refer_to_mounted_secrets(self, tmp_path: Path):
        for name in ("migrate", "app1", "app2"):
            service = self.services[name]
            environ = {key: str(value) for key, value in service["environment"].items()}
            assert refusals(environ, tmp_path) == ""
            for key, value in environ.items():
                if key.endswith("_FILE"):
                    assert value.removeprefix("/run/secrets/") in service["secrets"]

    def test_it_is_confined_and_gets_the_time_to_drain(self):
        for name in ("migrate", "app1", "app2"):
            service = self.services[name]
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["stop_grace_period"] == "40s"
            assert service["depends_on"]["postgresql" if name == "migrate" else "migrate"]
        published = {name for name, service in self.services.items() if "ports" in service}
        assert published == {"nginx", "grafana"}
        assert all(port.startswith("127.0.0.1:") for port in self.services["grafana"]["ports"])
        for name, service in self.services.items():
            assert "healthcheck" in service, name

    def test_the_proxy_that_is_trusted_is_nginx_and_it_asks_the_instances(self):
        networks = {
            name: self.services[name]["networks"]["inside"]["ipv4_address"] for name in ("nginx", "app1", "app2")
        }
        assert self.services["app1"]["environment"]["USERMGMT_NETWORK__TRUSTED_PROXIES"] == networks["nginx"]
        upstream = (DEPLOY / "compose" / "nginx-upstream.conf").read_text()
        sample = (DEPLOY / "nginx" / "usermgmt-upstream.conf").read_text()
        for name, own in (("app1", "127.0.0.1:8001"), ("app2", "127.0.0.1:8002")):
            sample = sample.replace(own, f"{networks[name]}:8000")
        assert upstream.splitlines()[1:] == sample.splitlines()[1:]


class TestKubernetes:
    @pytest.mark.parametrize("version", KUBERNETES)
    def test_manifests_are_what_kubernetes_takes(self, version: str):
        kinds = []
        for _, document in manifests():
            kubernetes_validate.validate(document, version, strict=True)
            kinds.append(document["kind"])
        assert {
            "Namespace",
            "Secret",
            "ConfigMap",
            "Job",
            "Deployment",
            "PodDisruptionBudget",
            "HorizontalPodAutoscaler",
            "Service",
            "Ingress",
            "NetworkPolicy",
        } <= set(kinds)

    def test_pods_run_as_nobody_in_particular_and_write_nowhere(self):
        for name, template in pod_templates().items():
            pod = template["spec"]
            assert pod["securityContext"]["runAsNonRoot"] is True, name
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["automountServiceAccountToken"] is False
            for container in pod["containers"]:
                context = container["securityContext"]
                assert context["readOnlyRootFilesystem"] is True
                assert context["allowPrivilegeEscalation"] is False
                assert context["capabilities"] == {"drop": ["ALL"]}

    def test_variables_are_settings_and_their_files_are_in_the_secret(self, tmp_path: Path):
        named = {f"{made['kind']} {made['metadata']['name']}": made for _, made in manifests()}
        settings = dict(named["ConfigMap usermgmt"]["data"])
        job = named["Job usermgmt-migrate"]["spec"]["template"]["spec"]["containers"][0]
        migrating = {variable["name"]: variable["value"] for variable in job["env"]}
        secret = named["Secret usermgmt"]["stringData"]
        for environ in (settings, migrating):
            assert refusals(environ, tmp_path) == ""
            files = {value for key, value in environ.items() if key.endswith("_FILE")}
            assert files <= {f"/run/secrets/usermgmt/{key}" for key in secret}
        assert secret["secret-keys"] == EXAMPLE_KEY

    def test_the_example_of_a_secret_does_not_start(self):
        environ = {**os.environ, "USERMGMT_SECRET__KEYS": EXAMPLE_KEY, "USERMGMT_DATABASE__URL": "postgresql://a@b/c"}
        done = subprocess.run([PROGRAM, "config", "check"], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 78
        assert "secret.keys" in done.stderr

    def test_parts_find_each_other_and_draining_ends_before_the_kill(self):
        named = {f"{made['kind']} {made['metadata']['name']}": made for _, made in manifests()}
        deployment = named["Deployment usermgmt"]["spec"]
        labels = deployment["template"]["metadata"]["labels"]
        assert named["Service usermgmt"]["spec"]["selector"] == labels
        for kind in ("PodDisruptionBudget", "NetworkPolicy"):
            spec = named[f"{kind} usermgmt"]["spec"]
            assert (spec.get("selector") or spec["podSelector"])["matchLabels"] == labels
        (container,) = deployment["template"]["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
        assert {probe["port"] for probe in probes} <= ports
        settings = load_settings(
            environ={
                key: value for key, value in named["ConfigMap usermgmt"]["data"].items() if not key.endswith("_FILE")
            },
            config=None,
        ).server
        readiness = container["readinessProbe"]
        notices = readiness["periodSeconds"] * (readiness["failureThreshold"] + 1)
        assert notices <= settings.drain_delay.total_seconds() + readiness["periodSeconds"]
        assert (
            settings.graceful_timeout.total_seconds() + 1
            < deployment["template"]["spec"]["terminationGracePeriodSeconds"]
        )
        job = named["Job usermgmt-migrate"]["spec"]["template"]["spec"]["containers"][0]
        assert job["image"] == container["image"]


class TestSystemd:
    @pytest.fixture
    def units(self, tmp_path: Path) -> Path:
        """The units with a program that exists."""
        for name in UNITS:
            text = (DEPLOY / "systemd" / name).read_text()
            assert "/opt/usermgmt/bin/usermgmt" in text
            (tmp_path / name).write_text(text.replace("/opt/usermgmt/bin/usermgmt", PROGRAM))
        return tmp_path

    @pytest.mark.parametrize("name", ["usermgmt.service", "usermgmt@1.service", "usermgmt-migrate.service"])
    def test_systemd_finds_nothing_wrong(self, units: Path, name: str):
        if "@" in name:
            (units / "usermgmt@.service").rename(units / name)
        command = [found("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", str(units / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def test_it_may_do_little(self, units: Path):
        command = [found("systemd-analyze"), "security", "--offline=true", "--no-pager", "--threshold=20"]
        for name in ("usermgmt.service", "usermgmt-migrate.service"):
            done = subprocess.run([*command, str(units / name)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout

    def test_one_instance_and_one_of_several_differ_in_their_places_only(self):
        one, several = ((DEPLOY / "systemd" / name).read_text().splitlines() for name in UNITS[:2])
        assert len(one) == len(several)
        different = {old.partition("=")[0] for old, new in zip(one, several, strict=True) if old != new}
        settings = {line for line in different if not line.startswith("#")}
        assert settings == {"Description", "User", "StateDirectory", "WorkingDirectory", "Environment"}

    @pytest.mark.parametrize("name", UNITS)
    def test_variables_are_settings_and_their_files_are_credentials(self, name: str, tmp_path: Path):
        text = (DEPLOY / "systemd" / name).read_text().replace("%i", "1")
        environ = dict(re.findall(r"^Environment=(USERMGMT_\w+)=(.*)$", text, re.MULTILINE))
        assert refusals(environ, tmp_path) == ""
        credentials = set(re.findall(r"^LoadCredential=([\w-]+):", text, re.MULTILINE))
        assert {value for key, value in environ.items() if key.endswith("_FILE")} == {
            f"%d/{credential}" for credential in credentials
        }

    def test_the_kernel_that_refuses_writable_code_is_no_obstacle(self):
        """MemoryDenyWriteExecute=yes, by the kernel's own word for it (PR_SET_MDWE, Linux 6.3)."""
        forbid = "import ctypes; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0"
        every = "import usermgmt.operator.cli, usermgmt.app, usermgmt.operator.server, uvloop, asyncpg, bcrypt, redis"
        use = (
            "from cryptography.hazmat.primitives.asymmetric import ec; ec.generate_private_key(ec.SECP256R1());"
            "bcrypt.hashpw(b'x', bcrypt.gensalt(4)); uvloop.new_event_loop().close()"
        )
        done = subprocess.run(
            [sys.executable, "-c", f"{forbid}; {every}; {use}"], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
