"""The files of docker/: they parse, keep to their schemas, and name what the server has."""

from __future__ import annotations

import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml
from fastapi.testclient import TestClient

from serve.http.keys import Keyring
from serve.settings import ENV_PREFIX, Settings
from tests.support.serving import app_at

DOCKER = Path(__file__).parents[2] / "docker"
FILES = sorted(path for path in DOCKER.rglob("*") if path.is_file())
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
KUBERNETES = list(yaml.safe_load_all((DOCKER / "kubernetes.yaml").read_text()))
DASHBOARD = json.loads((DOCKER / "grafana/dashboards/hypclip.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
SOURCES = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
PROMETHEUS = yaml.safe_load((DOCKER / "prometheus.yml").read_text())


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [resource for resource in KUBERNETES if resource["kind"] == kind]
    return found


POD = of_kind("Deployment")["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with TestClient(app_at(tmp_path_factory.mktemp("serve"))) as app:
        yield app


def test_there_is_nothing_that_no_test_reads():
    assert {str(path.relative_to(DOCKER)) for path in FILES} == {
        "compose.yaml",
        "grafana/dashboards/hypclip.json",
        "grafana/provisioning/dashboards/hypclip.yaml",
        "grafana/provisioning/datasources/prometheus.yaml",
        "kubernetes.yaml",
        "prometheus.yml",
        "serve.Dockerfile",
        "train.Dockerfile",
    }


# What the server has


def metrics(expression: str) -> set[str]:
    """Return what an expression selects, having parsed it as Prometheus would."""
    found = set()

    def note(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name)

    promql_parser.walk(
        promql_parser.parse(expression.replace("$__rate_interval", "5m").replace("$endpoint", ".+")), note
    )
    return found


def test_the_metrics_of_the_dashboard_are_exported(app):
    types = re.findall(r"^# TYPE (\S+) (\S+)$", app.get("/metrics").text, re.MULTILINE)
    exported = {
        name + suffix
        for name, kind in types
        for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }
    used = set().union(*map(metrics, EXPRESSIONS))
    assert len(used) > 15
    assert used <= exported


def test_the_dashboard_shows_what_it_should():
    everything = " ".join(EXPRESSIONS)
    for shown in (
        "sum by (endpoint, code) (rate(hypclip_requests_total",
        *(f"histogram_quantile({q}, sum by (le) (rate(hypclip_request_seconds_bucket" for q in (0.5, 0.95, 0.99)),
        'code=~"5..',
        "hypclip_queue_depth",
        "hypclip_queue_wait_seconds_bucket",
        "hypclip_batch_size_sum",
        "hypclip_inference_seconds_bucket",
        "hypclip_preprocess_seconds_bucket",
        "sum by (reason) (rate(hypclip_rejected_total",
        "sum by (le, op) (rate(hypclip_index_seconds_bucket",
        "by (collection) (hypclip_index_points)",
        "hypclip_worker_heartbeat_seconds",
        "hypclip_cache_hits_total",
        "hypclip_cache_misses_total",
    ):
        assert shown in everything, shown


def environment(service: str) -> dict[str, str | None]:
    return SERVICES[service]["environment"]


IN_KUBERNETES = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}
IN_COMPOSE = {name: value for name, value in environment("serve").items() if value is not None}


def test_every_variable_is_a_setting():
    text = "".join(path.read_text() for path in FILES)
    found = set(re.findall(rf"\b{ENV_PREFIX}[A-Z_]+", text))
    assert found <= {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    assert len(found) >= 11


@pytest.mark.parametrize("variables", [IN_COMPOSE, IN_KUBERNETES], ids=["compose", "kubernetes"])
def test_the_settings_take_the_values(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert str(settings.checkpoint) == variables["HYPCLIP_CHECKPOINT"]
    assert settings.log_format == "json"


def mounted(path: str, mounts: dict[str, bool]) -> bool:
    """Tell whether the mount that holds a path may be written."""
    return mounts[max((mount for mount in mounts if Path(path).is_relative_to(mount)), key=len)]


def test_the_index_can_be_written_and_nothing_else():
    compose = {v["target"]: not v.get("read_only") for v in SERVICES["serve"]["volumes"]}
    kubernetes = {m["mountPath"]: not m.get("readOnly") for m in CONTAINER["volumeMounts"]}
    for variables, mounts in ((IN_COMPOSE, compose), (IN_KUBERNETES, kubernetes)):
        assert mounted(variables["HYPCLIP_INDEX"], mounts)
        assert not mounted(variables["HYPCLIP_CHECKPOINT"], mounts)
    assert not mounted(IN_KUBERNETES["HYPCLIP_API_KEYS_FILE"], kubernetes)


def test_the_secret_is_a_file_of_keys_that_lets_nobody_in(tmp_path):
    (tmp_path / "keys").write_text(of_kind("Secret")["stringData"]["keys"])
    assert not Keyring.read(tmp_path / "keys").is_open


def healthcheck(service: str) -> str:
    return " ".join(SERVICES[service]["healthcheck"]["test"])


def test_the_probes_ask_for_what_is_there(app):
    dockerfile = (DOCKER / "serve.Dockerfile").read_text()
    urls = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", dockerfile + healthcheck("serve"))
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    urls += [(str(ports[CONTAINER[probe]["httpGet"]["port"]]), CONTAINER[probe]["httpGet"]["path"]) for probe in PROBES]
    assert [path for _, path in urls] == ["/healthz", "/readyz", "/healthz", "/healthz", "/readyz"]
    assert {port for port, _ in urls} == {str(Settings().port)} == set(re.findall(r"EXPOSE (\d+)", dockerfile))
    (scraped,) = PROMETHEUS["scrape_configs"]
    for path in [scraped["metrics_path"], *(path for _, path in urls)]:
        assert app.get(path).status_code == 200


def test_prometheus_scrapes_the_service():
    (scraped,) = PROMETHEUS["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": [f"serve:{Settings().port}"]}]
    annotations = of_kind("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(Settings().port)
    assert annotations["prometheus.io/path"] == scraped["metrics_path"]


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


@pytest.mark.parametrize(
    "grace_s, variables",
    [
        (seconds(SERVICES["serve"]["stop_grace_period"]), IN_COMPOSE),
        (POD["terminationGracePeriodSeconds"], IN_KUBERNETES),
    ],
    ids=["compose", "kubernetes"],
)
def test_there_is_time_to_drain_and_to_answer(grace_s, variables):
    assert grace_s > float(variables["HYPCLIP_DRAIN_S"]) + float(variables["HYPCLIP_REQUEST_TIMEOUT_S"])


def test_readiness_is_seen_while_the_server_drains():
    probe = CONTAINER["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < float(IN_KUBERNETES["HYPCLIP_DRAIN_S"])


# Schemas


def test_compose_keeps_to_its_schema():
    schemas = importlib.resources.files("check_jsonschema.builtin_schemas.vendor")
    jsonschema.validate(COMPOSE, json.loads((schemas / "compose-spec.json").read_text()))


@pytest.mark.parametrize("resource", KUBERNETES, ids=lambda resource: resource["kind"])
def test_kubernetes_takes_the_resources(resource):
    kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


# What is not of our making


def images() -> list[str]:
    built = re.findall(r"^FROM (\S+)", "".join(p.read_text() for p in FILES if p.suffix == ".Dockerfile"), re.MULTILINE)
    return [*built, *(service["image"] for service in SERVICES.values()), CONTAINER["image"]]


@pytest.mark.parametrize("image", images())
def test_images_are_pinned(image):
    name, tag = image.rsplit(":", 1)
    assert "/" not in tag
    assert re.match(r"v?\d+\.\d+", tag), f"{name} needs a tag that names a version"


@pytest.mark.parametrize("service", SERVICES)
def test_services_may_do_little(service):
    options = SERVICES[service]
    assert options["read_only"] is True
    assert options["cap_drop"] == ["ALL"]
    assert options["security_opt"] == ["no-new-privileges:true"]
    assert options["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in options.get("ports", []))


def test_what_profiles_there_are():
    profiles = {name: service.get("profiles") for name, service in SERVICES.items()}
    monitoring = ["monitoring"]
    assert profiles == {"serve": None, "prometheus": monitoring, "grafana": monitoring, "qdrant": ["qdrant"]}
    # A service without a profile must start without those that have one.
    assert SERVICES["serve"]["depends_on"]["qdrant"]["required"] is False


def test_qdrant_is_reached_by_the_server_alone():
    assert SERVICES["qdrant"]["networks"] == ["store"]
    assert "ports" not in SERVICES["qdrant"]
    assert COMPOSE["networks"]["store"]["internal"] is True
    assert [name for name, service in SERVICES.items() if "store" in service.get("networks", [])] == ["serve", "qdrant"]


def test_the_pod_may_do_little():
    pod, container = POD["securityContext"], CONTAINER["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (container["readOnlyRootFilesystem"], container["allowPrivilegeEscalation"]) == (True, False)
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert POD["automountServiceAccountToken"] is False
    assert {"requests", "limits"} <= CONTAINER["resources"].keys()


def test_one_pod_has_the_index():
    deployment = of_kind("Deployment")["spec"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")


def test_the_resources_of_kubernetes_belong_together():
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert of_kind(kind)["spec"]["selector"] == {"matchLabels": labels}
    assert of_kind("Service")["spec"]["selector"] == labels
    claims = {resource["metadata"]["name"] for resource in KUBERNETES if resource["kind"] == "PersistentVolumeClaim"}
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    assert {v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v} == claims
    assert volumes["keys"]["secret"]["secretName"] == of_kind("Secret")["metadata"]["name"]
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == volumes.keys()


@pytest.mark.parametrize("service", ["prometheus", "grafana"])
def test_what_is_mounted_from_here_is_here(service):
    sources = [volume.split(":") for volume in SERVICES[service]["volumes"] if volume.startswith("./")]
    assert sources
    for source, _, mode in sources:
        assert (DOCKER / source).exists()
        assert mode == "ro"


# Grafana


def test_the_dashboard_is_of_the_last_classic_schema():
    assert DASHBOARD["schemaVersion"] == 42
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert DASHBOARD.get("id") is None  # given by Grafana


def test_panels_do_not_overlap():
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & cells, panel["title"]
        cells |= covered


def test_everything_asks_the_provisioned_source():
    (source,) = SOURCES
    reference = {"type": source["type"], "uid": source["uid"]}
    variables = DASHBOARD["templating"]["list"]
    for asking in [*PANELS, *variables, *(target for panel in PANELS for target in panel["targets"])]:
        assert asking["datasource"] == reference
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]


def test_grafana_finds_the_dashboard():
    file = DOCKER / "grafana/provisioning/dashboards/hypclip.yaml"
    (provider,) = yaml.safe_load(file.read_text())["providers"]
    mounts = dict(volume.split(":")[1::-1] for volume in SERVICES["grafana"]["volumes"])
    assert mounts[provider["options"]["path"]] == "./grafana/dashboards"
    home = Path(environment("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home == Path(provider["options"]["path"]) / "hypclip.json"
