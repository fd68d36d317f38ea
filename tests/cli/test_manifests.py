"""Files become objects that know where they came from; errors name the place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.cli.durations import seconds
from quarterdeck.cli.manifests import line_of, parse, read
from quarterdeck.errors import ConfigError, UsageError

from .conftest import Run

TEXT = """# a comment
apiVersion: v1
kind: ConfigMap
metadata:
  name: one
---
# nothing here
---
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Pod
    metadata: {name: two}
    spec:
      containers:
        - name: a
        - name: b
          image: x
"""


def test_documents_lists_and_lines() -> None:
    one, two = parse("f.yaml", TEXT)
    assert (one.document, one.name) == (1, "one")
    assert two.at("spec.containers[1].image") == "f.yaml: document 3, line 19"
    assert two.at("spec.containers[1].missing") == "f.yaml: document 3, line 18"
    assert two.at() == "f.yaml: document 3, line 12"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [\n", "document 1, line 2, column 1: not YAML"),
        ("apiVersion: v1\nkind: X\nmetadata: {name: a}\n---\nb: {\n", "document 2"),
        ("- a\n", "document 1, line 1: a Kubernetes object must be a mapping"),
        ("\n\nkind: X\n", "document 1, line 3: apiVersion: Required value"),
        ("apiVersion: v1\n", "kind: Required value"),
        ("apiVersion: v1\nkind: X\nmetadata: {}\n", "X: metadata.name: Required value"),
        ("apiVersion: v1\nkind: X\nmetadata: {name: 7}\n", "X: metadata.name: Required value"),
    ],
)
def test_errors_name_document_and_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse("f.yaml", text)
    assert str(caught.value).startswith("f.yaml: ")
    assert message in str(caught.value)


def test_order_namespaces_then_definitions_then_as_written(tmp_path: Path) -> None:
    def text(kind: str, name: str) -> str:
        return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})

    (tmp_path / "b.yaml").write_text("\n---\n".join([text("Pod", "z"), text("Pod", "a"), text("Namespace", "n")]))
    (tmp_path / "a.json").write_text(text("CustomResourceDefinition", "c"))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.yml").write_text(text("Pod", "deep"))
    (tmp_path / "notes.txt").write_text("not read")
    assert [m.name for m in read([str(tmp_path)])] == ["n", "c", "z", "a"]
    assert [m.name for m in read([str(tmp_path)], recursive=True)] == ["n", "c", "z", "a", "deep"]
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read([str(tmp_path / "none.yaml")])
    with pytest.raises(UsageError, match="no objects"):
        (tmp_path / "empty.yaml").write_text("---\n")
        read([str(tmp_path / "empty.yaml")])


def test_dates_stay_text() -> None:
    (found,) = parse("f", "apiVersion: v1\nkind: X\nmetadata: {name: a}\ndata: {day: 2020-01-01, bad: 2020-99-99}\n")
    assert found.body["data"] == {"day": "2020-01-01", "bad": "2020-99-99"}


VALUES = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(VALUES, st.text())
def test_line_of_never_fails(value: object, field: str) -> None:
    tree = yaml.compose(yaml.safe_dump(value))
    assert tree is not None
    assert line_of(tree, field) >= 1


@given(st.text())
def test_parse_of_anything_is_objects_or_a_config_error(text: str) -> None:
    try:
        parse("f", text)
    except ConfigError as error:
        assert str(error).startswith("f: document ")


@pytest.mark.parametrize(("text", "value"), [("90", 90), ("1h30m", 5400), ("500ms", 0.5), ("2d", 172800)])
def test_durations(text: str, value: float) -> None:
    assert seconds(text, "--timeout") == value


def test_bad_duration_names_the_option() -> None:
    with pytest.raises(UsageError, match="--since=soon"):
        seconds("soon", "--since")


THREE = """
apiVersion: v1
kind: ConfigMap
metadata: {name: inside, namespace: applied}
data: {a: "1"}
---
apiVersion: v1
kind: Namespace
metadata: {name: applied}
"""


def test_apply_created_unchanged_configured(qd: Run, kubectl: Run, tmp_path: Path) -> None:
    path = tmp_path / "three.yaml"
    path.write_text(THREE)
    assert qd("apply", "-f", str(path), "--dry-run=client").stdout.splitlines() == [
        "namespace/applied created (dry run)",
        "configmap/inside created (dry run)",
    ]
    assert kubectl("get", "ns", "applied", ok=False).returncode == 1
    assert qd("apply", "-f", str(path)).stdout.splitlines() == [
        "namespace/applied created",
        "configmap/inside created",
    ]
    before = kubectl("get", "cm", "inside", "-n", "applied", "-o", "json").stdout
    assert "configmap/inside unchanged" in qd("apply", "-f", str(path)).stdout
    assert kubectl("get", "cm", "inside", "-n", "applied", "-o", "json").stdout == before
    path.write_text(THREE.replace('"1"', '"2"'))
    assert "configmap/inside configured (server dry run)" in qd("apply", "-f", str(path), "--dry-run=server").stdout
    assert kubectl("get", "cm", "inside", "-n", "applied", "-o", "json").stdout == before
    assert "configmap/inside configured" in qd("apply", "-f", str(path)).stdout
    owners = kubectl("get", "cm", "inside", "-n", "applied", "-o", "json", "--show-managed-fields").stdout
    assert '"manager": "qd"' in owners


def test_apply_errors_name_the_field_and_the_rest_is_applied(qd: Run, kagent_kinds: None, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "apiVersion: kagent.dev/v1alpha2\nkind: ModelConfig\nmetadata: {name: wrong}\nspec:\n  modle: x\n  model: y\n"
        "---\napiVersion: kagent.dev/v1alpha2\nkind: ModelConfig\nmetadata: {name: wrongtype}\nspec:\n  model: 7\n"
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: fine}\n"
        "---\napiVersion: v9\nkind: Gizmo\nmetadata: {name: g}\n"
    )
    done = qd("apply", "-f", str(path), ok=False)
    assert done.returncode == 1
    assert done.stdout == "configmap/fine created\n"
    first, second, *_, last = done.stderr.splitlines()
    assert f"{path}: document 1, line 5: ModelConfig wrong:" in first and "spec.modle" in first
    assert f"{path}: document 2, line 12: ModelConfig wrongtype:" in second and "spec.model" in second
    assert 'document 4, line 18: Gizmo g: no matches for kind "Gizmo"' in last


def test_apply_conflict_names_the_remedy(qd: Run, kubectl: Run) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned"}, "data": {"a": "1"}}
    kubectl("apply", "--server-side", "-f", "-", input=json.dumps(body))
    body["data"] = {"a": "2"}
    done = qd("apply", "-f", "-", input=json.dumps(body), ok=False)
    assert done.returncode == 1
    assert "--force-conflicts" in done.stderr
    assert "configured" in qd("apply", "-f", "-", "--force-conflicts", input=json.dumps(body)).stdout


def test_delete_says_what_and_waits(qd: Run, kubectl: Run) -> None:
    for name in ("d1", "d2"):
        kubectl("create", "cm", name)
        kubectl("label", "cm", name, "d=yes")
    done = qd("delete", "cm", "d1", "none", ok=False)
    assert done.returncode == 1
    assert done.stdout == 'configmap "d1" deleted from default namespace\n'
    assert done.stderr == 'Error from server (NotFound): configmaps "none" not found\n'
    assert qd("delete", "cm", "-l", "d=yes", "-o", "name").stdout == "configmap/d2\n"
    assert qd("delete", "cm", ok=False).returncode == 2
    assert qd("delete", "cm", "x", "--cascade", "sideways", ok=False).returncode == 2


def test_delete_waits_for_finalizers_until_the_deadline(qd: Run, kubectl: Run) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    qd("apply", "-f", "-", input=json.dumps(body))
    done = qd("delete", "cm/held", "--timeout", "300ms", ok=False)
    assert done.returncode == 5
    assert "finalizers" in done.stderr
    kubectl("patch", "cm", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
