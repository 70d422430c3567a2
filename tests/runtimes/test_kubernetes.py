"""Kubernetes manifests: against Kubernetes' own schemas, the image that they start, and the server that it runs."""

from __future__ import annotations

import json
import re

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny_artifacts import make

from mlpack.core.runtime import PackageOptions
from mlpack.runtimes import RUNTIMES
from mlpack.runtimes.kubernetes import dns_label

ASKED = PackageOptions(manifests="kubernetes")
KUBERNETES = "1.37"
A100 = {"target": {"name": "a100", "kind": "cuda"}, "model__numerics": "int8", "accuracy__simulated": True,
        "model__backend_options": {"threads": 2, "graph_optimizations": "off"}, "latency": []}  # fmt: skip
OPENVINO = {"model__backend": "openvino", "accuracy__backend": "openvino"}
CASES = {
    "fastapi": ("fastapi", {}),
    "triton": ("triton", {}),
    "torchserve": ("torchserve", {}),
    "triton with the python backend": ("triton", OPENVINO),
    "triton on a card": ("triton", A100),
}


def manifests(folder, runtime, changes=None, options=ASKED, peaks=None):
    def report(place):
        (place / "reports").mkdir()
        told = {"metrics": {"peak_rss_bytes": {"optimized": peaks}}, "tables": {}}
        (place / "reports" / "profile_latency.json").write_text(json.dumps(told))

    stored = make(folder, **(changes or {}), **({"beside": report} if peaks else {}))
    layout = RUNTIMES[runtime].layout(stored, options)
    found = {name: yaml.safe_load(text) for name, text in layout.items() if name.startswith("k8s/")}
    return {each["kind"]: each for each in found.values()}, layout


@pytest.mark.parametrize("case", CASES)
def test_every_manifest_is_valid(tmp_path, case):
    runtime, changes = CASES[case]
    found, _ = manifests(tmp_path, runtime, changes)
    assert set(found) == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
    for each in found.values():
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
    found["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailible"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(found["Deployment"], KUBERNETES, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_they_belong_together(tmp_path, case):
    runtime, changes = CASES[case]
    found, layout = manifests(tmp_path, runtime, changes)
    pod = found["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert found[kind]["spec"]["selector"]["matchLabels"].items() <= labels
    assert found["Service"]["spec"]["selector"].items() <= labels
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    assert found["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    (server,) = pod["spec"]["containers"]
    listening = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert {port["targetPort"]: port["port"] for port in found["Service"]["spec"]["ports"]} == listening
    assert re.search(rf"^EXPOSE {' '.join(map(str, listening.values()))}$", layout["Dockerfile"], re.MULTILINE)
    assert server["image"] in layout["compose.yaml"]
    mounted = {each["name"] for each in server["volumeMounts"]}
    assert mounted == {each["name"] for each in pod["spec"]["volumes"]}
    assert ("shared-memory" in mounted) == ("shm_size" in layout["compose.yaml"])
    assert ("cache" in mounted) == ("nvidia.com/gpu" in server["resources"]["limits"]) == (changes is A100)


def test_nothing_runs_as_root_or_writes(tmp_path):
    found, layout = manifests(tmp_path, "fastapi")
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert f"USER {pod['securityContext']['runAsUser']}:" in layout["Dockerfile"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    (server,) = pod["containers"]
    assert server["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


def test_resources_are_those_that_were_measured(tmp_path):
    two = PackageOptions(manifests="kubernetes", instances=2)
    peaks = [300 * 2**20, 310 * 2**20, 290 * 2**20]
    threads = {"model__backend_options": {"threads": 3}}
    found, layout = manifests(tmp_path, "fastapi", threads, two, peaks)
    (server,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    # 300 MiB, twice, and half as much again: 900, in steps of 64.
    assert server["resources"] == {"requests": {"cpu": "6", "memory": "960Mi"}, "limits": {"memory": "1920Mi"}}
    assert "300 MiB, the measured peak" in layout["k8s/deployment.yaml"]
    _, plain = manifests(tmp_path / "plain", "fastapi")
    assert "not measured" in plain["k8s/deployment.yaml"]


def test_the_probes_ask_what_the_server_answers(packaged, serve):
    folder = packaged("mlp", "fastapi", k8s=True)
    deployment = yaml.safe_load((folder / "k8s" / "deployment.yaml").read_text())
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    running = serve(folder)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert running.ask(server[probe]["httpGet"]["path"])[0] == 200


def test_what_only_the_operator_knows_comes_from_a_secret(tmp_path):
    options = PackageOptions(manifests="kubernetes", access="token", cache="redis")
    found, layout = manifests(tmp_path, "fastapi", options=options)
    (server,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    wanted = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in server["env"]}
    assert wanted == {key: {"name": "tiny-mlp", "key": key} for key in ("AUTH_TOKEN", "REDIS_URL")}
    command = "kubectl create secret generic tiny-mlp --from-literal=AUTH_TOKEN=... --from-literal=REDIS_URL=..."
    assert command in layout["k8s/deployment.yaml"]
    for each in found.values():
        kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_a_cache_in_memory_is_asked_for(tmp_path):
    def mib(folder, **options):
        found, _ = manifests(folder, "fastapi", options=PackageOptions(manifests="kubernetes", **options))
        (server,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
        return int(server["resources"]["requests"]["memory"].removesuffix("Mi"))

    assert mib(tmp_path / "a", cache="memory", cache_mb=8000) - mib(tmp_path / "b") > 8000


@pytest.mark.parametrize("name", ["on", "true", "null", "1", "net."])
def test_names_that_yaml_reads_otherwise_stay_names(tmp_path, name):
    stored = make(tmp_path)
    stored = stored.model_copy(update={"artifact": stored.artifact.model_copy(update={"name": name})})
    layout = RUNTIMES["fastapi"].layout(stored, ASKED)
    for path, text in layout.items():
        if path.startswith("k8s/"):
            kubernetes_validate.validate(yaml.safe_load(text), KUBERNETES, strict=True)
    compose = yaml.safe_load(layout["compose.yaml"])
    assert list(compose["services"]) == [name]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*:1", compose["services"][name]["image"])


def test_manifests_are_there_only_where_they_are_asked_for(tmp_path):
    found, _ = manifests(tmp_path, "triton", options=PackageOptions())
    assert found == {}


@given(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,100}", fullmatch=True))
def test_every_name_has_a_label(name):
    label = dns_label(name)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", label)
    assert len(label) <= 63
