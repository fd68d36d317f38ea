from __future__ import annotations

import base64
from typing import Any

import pytest

from quarterdeck.errors import ConfigError
from quarterdeck.resources.agent import Skills
from quarterdeck.resources.base import parse
from quarterdeck.translate.network import agent_policy
from quarterdeck.translate.options import NetworkPolicies
from quarterdeck.translate.skills import check_config_map, names_of, skill_parts, sources_of

GIT = "https://github.com/example/skills.git"
TEXT = "---\nname: pdf\ndescription: d\n---\nBody\n"


def skills(**fields: Any) -> Skills:
    return parse(Skills, fields, "Skills")


def test_an_agent_without_skills_gets_nothing() -> None:
    for empty in (None, skills(), skills(gitAuthSecretRef={"name": "unused"})):
        parts = skill_parts(empty, "image", None)
        assert not any((parts.config, parts.init, parts.volumes, parts.mounts, parts.env, parts.ports))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"gitRefs": [{"url": "file:///etc"}]}, "fetched over https:// or ssh://"),
        ({"gitRefs": [{"url": GIT, "ref": "--upload-pack=id"}]}, "is no branch, tag or commit"),
        ({"gitRefs": [{"url": GIT, "path": "../.."}]}, "leads out of the skill's folder"),
        ({"gitRefs": [{"url": GIT, "name": "../etc"}]}, "leads out of"),
        ({"gitRefs": [{"url": GIT, "name": "a/b"}]}, "must be the name of one folder"),
        ({"refs": ["A B"]}, "is not an image reference"),
        ({"s3Refs": [{"uri": "s3://bucket"}]}, "is not s3://BUCKET/PREFIX"),
        ({"s3Refs": [{"uri": "s3://bucket/a", "endpoint": "http://minio.example.com"}]}, "must be an https:// URL"),
        ({"s3Refs": [{"uri": "s3://bucket/a", "endpoint": "https://[x"}]}, "is not a URL"),
        ({"refs": ["localhost:99999/a"]}, "99999 is no port"),
        ({"s3Refs": [{"uri": "s3://bucket/a", "name": "."}]}, "must be the name of one folder"),
    ],
)
def test_sources_that_cannot_be_meant_are_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as failure:
        sources_of(skills(**fields))
    assert told in str(failure.value)


def test_verification_can_be_given_up() -> None:
    given = skills(insecureSkipVerify=True, gitRefs=[{"url": "http://git.internal/a"}])
    assert sources_of(given).insecure
    assert skill_parts(given, "image", None).ports == (80,)


def test_only_the_ports_of_the_sources_are_opened() -> None:
    given = skills(
        refs=["registry.example.com:5000/skill:v1"], configMapRefs=[{"name": "a"}],
        gitRefs=[{"url": GIT}, {"url": "git@example.com:a/b.git"}],
        s3Refs=[{"uri": "s3://bucket/a", "endpoint": "https://minio.example.com:9000"}],
    )  # fmt: skip
    ports = skill_parts(given, "image", None).ports
    assert ports == (22, 443, 5000, 9000)
    agent = {
        "kind": "Agent",
        "metadata": {"name": "a", "namespace": "n", "uid": "u"},
        "apiVersion": "kagent.dev/v1alpha2",
    }
    before = agent_policy(agent, {}, NetworkPolicies())["spec"]["egress"]
    after = agent_policy(agent, {}, NetworkPolicies(), ports)["spec"]["egress"]
    assert after[:-1] == before
    assert [each["port"] for each in after[-1]["ports"]] == [22, 443, 5000, 9000]
    assert "10.0.0.0/8" in after[-1]["to"][0]["ipBlock"]["except"]
    assert skill_parts(skills(configMapRefs=[{"name": "a"}]), "image", None).ports == ()


def test_an_endpoint_in_the_environment_counts() -> None:
    env = [{"name": "AWS_ENDPOINT_URL_S3", "value": "https://minio.example.com:9000"}]
    given = skills(s3Refs=[{"uri": "s3://bucket/a"}], initContainer={"env": env})
    assert skill_parts(given, "image", None).ports == (9000,)


def test_names_are_those_that_kagent_takes() -> None:
    given = skills(
        refs=["ghcr.io/org/skill@sha256:" + "0" * 64, "localhost:5000/other:v1"],
        gitRefs=[{"url": GIT}, {"url": GIT, "path": "a/csv/"}, {"url": GIT, "name": "own"}],
        s3Refs=[{"uri": "s3://bucket/a/report.tar.gz"}, {"uri": "s3://bucket/a", "name": "own3"}],
    )  # fmt: skip
    assert names_of(given) == ["skill", "other", "skills", "csv", "own", "report", "own3"]
    assert names_of(None) == []


def test_secrets_are_mounted_where_skills_are_fetched_and_nowhere_else() -> None:
    parts = skill_parts(skills(gitRefs=[{"url": GIT}], gitAuthSecretRef={"name": "git"}), "image", "Always")
    assert [mount["name"] for mount in parts.mounts] == ["skills"]
    assert parts.mounts[0]["readOnly"] is True
    assert {"name": "skills-git", "mountPath": "/var/run/secrets/skills/git", "readOnly": True} in parts.init[0][
        "volumeMounts"
    ]
    assert parts.init[0]["imagePullPolicy"] == "Always"
    assert {"name": "skills-work", "mountPath": "/tmp"} in parts.init[0]["volumeMounts"], "keys are copied there"
    assert b"git-auth" not in parts.config


@pytest.mark.parametrize(
    ("ref", "data", "told"),
    [
        ({}, {"SKILL.md": "x"}, "ConfigMap m/SKILL.md: line 1: begin the file with front matter"),
        ({}, {"readme": "x"}, "has no key SKILL.md; put the skill's instructions there"),
        ({"items": [{"key": "none", "path": "a"}]}, {"SKILL.md": TEXT}, "has no key 'none'; correct items"),
        (
            {"items": [{"key": "SKILL.md", "path": "../SKILL.md"}]},
            {"SKILL.md": TEXT},
            "leads out of the skill's folder",
        ),
        ({}, {"SKILL.md": TEXT + "x" * (128 << 10)}, "are the most; move details into files"),
    ],
)
def test_unsound_skills_in_config_maps_are_refused(ref: dict[str, Any], data: dict[str, str], told: str) -> None:
    given = skills(configMapRefs=[{"name": "m", **ref}]).config_map_refs
    assert given is not None
    with pytest.raises(ConfigError) as failure:
        check_config_map(given[0], data, {})
    assert told in str(failure.value)


def test_a_sound_one_has_a_name() -> None:
    given = skills(configMapRefs=[{"name": "m"}]).config_map_refs
    assert given is not None
    assert check_config_map(given[0], {"SKILL.md": TEXT}, {"a.bin": base64.b64encode(b"x").decode()}) == "pdf"
