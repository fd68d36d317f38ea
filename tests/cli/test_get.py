"""``qd get`` prints what kubectl prints."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from quarterdeck.cli.output import table, to_yaml

from .conftest import BIN, Run, runner

OBJECTS = """
apiVersion: v1
kind: Namespace
metadata: {name: seen, labels: {team: a}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: texts, namespace: seen, labels: {app: one}}
data: {lines: "first\\nsecond\\n", number: "1", truth: "true", star: "*x", empty: "", long: "%s"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: more, namespace: seen, labels: {app: two}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: seen}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "i:1"}]}
---
apiVersion: kagent.dev/v1alpha2
kind: ModelConfig
metadata: {name: model, namespace: seen}
spec: {provider: OpenAI, model: gpt-x}
""" % ("word " * 40)


@pytest.fixture(scope="module")
def objects(qd: Run, kagent_kinds: None) -> None:
    qd("apply", "-f", "-", input=OBJECTS)


@pytest.mark.parametrize(
    "words",
    [
        "get ns seen",
        "get cm -n seen",
        "get cm -A",
        "get configmap texts -n seen -o yaml",
        "get cm/texts deploy/web -n seen",
        "get cm texts more -n seen -o json",
        "get cm -n seen -l app=one -o name",
        "get deployments.apps -n seen -o wide",
        "get deploy,cm,mc -n seen",
        "get modelconfigs,crd -A",
        "get modelconfig.v1alpha2.kagent.dev -n seen -o name",
        "get crd",
        "get all -n seen",
        "get cm -n seen --show-labels",
        "get cm -n seen --no-headers",
        "get cm -n seen --field-selector metadata.name=texts",
        "get cm -n seen -o jsonpath={.items[*].metadata.name}",
        'get cm -n seen -o jsonpath={range.items[*]}{.metadata.name}{"\\t"}{.data.number}{"\\n"}{end}',
        "get cm -n seen -o custom-columns=NAME:.metadata.name,APP:.metadata.labels.app,NO:.spec.none",
        "get cm texts -n seen -o yaml --show-managed-fields",
        "get clusterroles -o name",
        "get cm none texts -n seen",
        "get secrets -n seen",
        "get cm none -n seen --ignore-not-found",
    ],
)
def test_same_output_as_kubectl(words: str, qd: Run, kubectl: Run, objects: None) -> None:
    ours, theirs = qd(*words.split(), ok=False), kubectl(*words.split(), ok=False)
    assert _ageless(ours.stdout) == _ageless(theirs.stdout)
    assert ours.returncode == theirs.returncode
    assert ours.stderr == theirs.stderr


def _ageless(table: str) -> str:
    """Without the ages, which tick between two calls."""
    return re.sub(r"\b\d+[smh](\d+[smh])?\b *", "AGE ", table)


def test_unknown_kind_is_a_usage_error(qd: Run) -> None:
    done = qd("get", "gizmos", ok=False)
    assert done.returncode == 2
    assert 'the server doesn\'t have a resource type "gizmos"' in done.stderr
    assert done.stdout == ""


def test_unknown_format_names_those_there_are(qd: Run) -> None:
    done = qd("get", "ns", "-o", "xml", ok=False)
    assert done.returncode == 2
    assert "'xml'" in done.stderr and "custom-columns" in done.stderr


def test_watch_shows_changes_and_deletion(qd: Run, environment: dict[str, str], objects: None) -> None:
    watching = subprocess.Popen(
        [BIN / "qd", "get", "cm", "-n", "seen", "-l", "watch=yes", "-w"],
        env={**environment, "PATH": os.environ["PATH"]}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells have their jobs ignore it
    )  # fmt: skip
    try:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "w", "labels": {"watch": "yes"}}}
        qd("apply", "-n", "seen", "-f", "-", input=json.dumps(body))
        assert watching.stdout is not None
        assert watching.stdout.readline().split() == ["NAME", "DATA", "AGE"]
        assert watching.stdout.readline().split()[:2] == ["w", "0"]
        qd("apply", "-n", "seen", "-f", "-", input=json.dumps(body | {"data": {"a": "b"}}))
        assert watching.stdout.readline().split()[:2] == ["w", "1"]
        qd("delete", "cm", "w", "-n", "seen")
        assert watching.stdout.readline().split()[:2] == ["w", "1"]
    finally:
        watching.send_signal(2)
        assert watching.wait(90) == 130


def test_impersonation_is_denied_with_exit_code_3(qd: Run) -> None:
    done = qd("get", "secrets", "-A", "--as", "nobody", ok=False)
    assert done.returncode == 3
    assert 'User "nobody" cannot list resource "secrets"' in done.stderr


def test_unreachable_server_is_an_error_without_traceback(qd: Run, tmp_path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], "
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]}"
    )
    done = qd("get", "ns", "--kubeconfig", str(config), ok=False)
    assert done.returncode == 1
    assert "http://127.0.0.1:1" in done.stderr


def test_credentials_that_are_not_taken(qd: Run, environment: dict[str, str], tmp_path: Path) -> None:
    import yaml

    config = yaml.safe_load(Path(environment["KUBECONFIG"]).read_text())
    config["users"][0]["user"] = {"token": "garbage"}
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    done = qd("get", "ns", "--kubeconfig", str(tmp_path / "config"), ok=False)
    assert done.returncode == 1 and "you must be logged in to the server" in done.stderr


def test_missing_kubeconfig_names_the_file(qd: Run, tmp_path) -> None:
    done = qd("get", "ns", "--kubeconfig", str(tmp_path / "none"), ok=False)
    assert done.returncode == 1
    assert str(tmp_path / "none") in done.stderr


def test_as_kubectl_plugin(kubectl: Run, objects: None) -> None:
    assert "texts" in kubectl("qd", "get", "cm", "-n", "seen").stdout
    assert kubectl("qd", "get", "gizmos", ok=False).returncode == 2


def test_help_is_cheap() -> None:
    before = os.times()
    subprocess.run([BIN / "qd", "--help"], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < 0.3


def test_table_columns_are_six_wide_and_three_apart() -> None:
    assert table([["a", "b"]], header=["N", "M"]) == "N     M\na     b\n"
    assert table([["abcdef", "b"]]) == "abcdef   b\n"


def test_yaml_quotes_what_reads_as_another_type() -> None:
    assert to_yaml({"b": "true", "a": ["1", "x\ny\n"]}) == 'a:\n- "1"\n- |\n  x\n  y\nb: "true"\n'


def test_completion_of_kinds_and_names(environment: dict[str, str], objects: None) -> None:
    def complete(words: str) -> list[str]:
        done = subprocess.run(
            [BIN / "qd"], capture_output=True, text=True, check=False,
            env={**environment, "PATH": os.environ["PATH"], "_QD_COMPLETE": "complete_bash",
                 "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)},
        )  # fmt: skip
        return done.stdout.split()

    started = time.monotonic()
    assert "modelconfigs" in complete("qd get modelc")
    assert "seen" in complete("qd get cm -n se")
    assert time.monotonic() - started < 20


def test_warnings_and_a_second_apply(qd: Run, kubectl: Run) -> None:
    """What is stored but not acted on is said as kubectl says it; an apply that changes nothing says so."""
    claim = json.dumps({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "quiet", "namespace": "default"},
        "spec": {"defaultBackend": {"service": {"name": "x", "port": {"number": 80}}}},
    })  # fmt: skip
    theirs = kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", input=claim).stderr
    said = qd("apply", "-f", "-", input=claim).stderr
    assert said.startswith("Warning: ") and said == theirs
    named = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "twice"}})
    assert [qd("apply", "-f", "-", input=named).stdout.split()[-1] for _ in range(3)] == [
        "created", "unchanged", "unchanged",
    ]  # fmt: skip


def test_no_colours_are_forced_on_anybody(environment: dict[str, str]) -> None:
    for words in (["--help"], ["get", "pods", "-A"], ["get", "nosuch"], ["get", "--nosuch"], ["doctor"]):
        for extra in ({"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}):
            done = runner("qd", environment | extra)(*words, ok=False)
            assert "\x1b" not in done.stdout + done.stderr
