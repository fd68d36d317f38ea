"""Skills of an agent's Pod: the init container that fetches them, what it mounts, and which ports it dials.

Names as kagent's: init container ``skills-init``, folder ``/skills``, variable ``KAGENT_SKILLS_FOLDER``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import msgspec

from quarterdeck.errors import ConfigError, UsageError
from quarterdeck.oci.reference import parse as parse_image
from quarterdeck.resources.agent import ConfigMapSkill, Skills
from quarterdeck.skills import bucket, git
from quarterdeck.skills.format import check_size, check_total, inside, parsed
from quarterdeck.skills.sources import ConfigMapSource, GitSource, OciSource, S3Source, Source, Sources

from .objects import present

CONTAINER = "skills-init"
FOLDER = "/skills"
FILE = "skills.json"
"""Key of the agent's Secret that says where the skills come from."""
_VOLUME = "skills"
_CONFIG_MAPS = "/var/run/quarterdeck/skills"
_SECRETS = "/var/run/secrets/skills"
_SIZE = "256Mi"
_WORK, _WORK_SIZE = "skills-work", "2Gi"
_RESOURCES = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}


@dataclass(frozen=True, slots=True)
class SkillParts:
    """What skills add to a Pod; all empty without any. ``ports``: where it dials public addresses."""

    config: bytes = b""
    init: tuple[dict[str, Any], ...] = ()
    volumes: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()
    env: tuple[dict[str, Any], ...] = ()
    ports: tuple[int, ...] = ()


def skill_parts(skills: Skills | None, image: str, pull_policy: str | None) -> SkillParts:
    """Raises ConfigError for sources that cannot be meant."""
    sources = sources_of(skills)
    if skills is None or not sources.sources:
        return SkillParts()
    volumes: list[dict[str, Any]] = [
        {"name": _VOLUME, "emptyDir": {"sizeLimit": _SIZE}},
        {"name": _WORK, "emptyDir": {"sizeLimit": _WORK_SIZE}},
    ]
    mounts = [
        {"name": _VOLUME, "mountPath": FOLDER},
        {"name": _WORK, "mountPath": "/tmp"},  # noqa: S108 - its own: if it is killed, a key is left there
        {"name": "config", "mountPath": "/config", "readOnly": True},
    ]
    paths: list[str] = []
    for number, ref in enumerate(skills.config_map_refs or ()):
        items = [item.model_dump(by_alias=True) for item in ref.items or ()]
        volumes.append({"name": f"skill-{number}", "configMap": present(name=ref.name, items=items)})
        mounts.append({"name": f"skill-{number}", "mountPath": f"{_CONFIG_MAPS}/{number}", "readOnly": True})
        paths += ["--config-map", f"{_CONFIG_MAPS}/{number}"]
    for name, secret in secrets_of(skills).items():
        volumes.append({"name": f"skills-{name}", "secret": {"secretName": secret, "defaultMode": 0o440}})
        mounts.append({"name": f"skills-{name}", "mountPath": f"{_SECRETS}/{name}", "readOnly": True})
        paths += ["--secret", f"{name}={_SECRETS}/{name}"]
    extra = skills.init_container
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": image,
        "command": ["python", "-m", "quarterdeck.skills"],
        "args": ["--sources", f"/config/{FILE}", "--to", FOLDER, "--report", "/dev/termination-log", *paths],
        "volumeMounts": mounts,
        "resources": (extra.resources if extra else None) or _RESOURCES,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }  # fmt: skip
    container |= present(env=extra.env if extra else None, imagePullPolicy=pull_policy)
    return SkillParts(
        msgspec.json.encode(sources),
        (container,),
        tuple(volumes),
        ({"name": _VOLUME, "mountPath": FOLDER, "readOnly": True},),
        ({"name": "KAGENT_SKILLS_FOLDER", "value": FOLDER},),
        _ports(sources, _literals(skills)),
    )


def sources_of(skills: Skills | None) -> Sources:
    """All sources, in the order ConfigMaps, git, images, S3. Raises ConfigError."""
    if skills is None:
        return Sources()
    insecure = bool(skills.insecure_skip_verify)
    found: list[Source] = [ConfigMapSource(ref.name, number) for number, ref in enumerate(skills.config_map_refs or ())]
    for ref in skills.git_refs or ():
        source = GitSource(ref.url, ref.ref, (ref.path or "").strip("/"), _folder(ref.name))
        git.check(source, insecure=insecure)
        found.append(source)
    for image in skills.refs or ():
        found.append(OciSource(image))
        _image_port(image)
    for ref in skills.s3_refs or ():
        source = S3Source(ref.uri, ref.region or "", ref.endpoint or "", _folder(ref.name))
        bucket.bucket_at(source, _literals(skills), insecure=insecure)
        found.append(source)
    pull = tuple(name for name in secrets_of(skills) if name.startswith("pull-"))
    return Sources(tuple(found), pull, insecure)


def secrets_of(skills: Skills | None) -> dict[str, str]:
    """Secrets the init container mounts: folder → name."""
    if skills is None:
        return {}
    found = {f"pull-{number}": ref.name for number, ref in enumerate(skills.image_pull_secrets or ())}
    found |= {"git": skills.git_auth_secret_ref.name} if skills.git_auth_secret_ref else {}
    return found | ({"s3": skills.s3_auth_secret_ref.name} if skills.s3_auth_secret_ref else {})


def names_of(skills: Skills | None) -> list[str]:
    """What a prompt template's ``.SkillNames`` are: as kagent takes them from the references."""
    if skills is None:
        return []
    names = [ref.name for ref in skills.config_map_refs or ()]
    names += [parse_image(image).name.rpartition("/")[2] for image in skills.refs or ()]
    for ref in skills.git_refs or ():
        path = (ref.path or "").strip("/") or urlsplit(ref.url).path.removesuffix(".git").rstrip("/")
        names.append(ref.name or PurePosixPath(path).name)
    return names + [ref.name or PurePosixPath(ref.uri).name.partition(".")[0] for ref in skills.s3_refs or ()]


def check_config_map(ref: ConfigMapSkill, data: Mapping[str, str], binary: Mapping[str, str]) -> str:
    """The name of the skill in a ConfigMap, checked as the init container will. Raises ConfigError."""
    where = f"skills.configMapRefs: ConfigMap {ref.name}"
    items = {item.key: item.path for item in ref.items} if ref.items else {key: key for key in (*data, *binary)}
    absent = sorted(key for key in items if key not in data and key not in binary)
    if absent:
        raise ConfigError(f"{where} has no key {absent[0]!r}; correct items or the ConfigMap")
    paths = {inside(path, where): key for key, path in items.items()}
    sizes = {path: len(data[key].encode()) if key in data else len(binary[key]) * 3 // 4 for path, key in paths.items()}
    for path, size in sizes.items():
        check_size(path, size, where)
    check_total(len(sizes), sum(sizes.values()), where)
    if "SKILL.md" not in paths or paths["SKILL.md"] not in data:
        raise ConfigError(f"{where} has no key SKILL.md; put the skill's instructions there")
    return parsed(PurePosixPath("/"), where, data[paths["SKILL.md"]], tuple(sizes.items())).name


def _folder(name: str | None) -> str:
    """Raises ConfigError for a folder's name that is a path."""
    if name and (inside(name, "skills: name") != name or "/" in name or name.startswith(".")):
        raise ConfigError(f"skills: name {name!r} must be the name of one folder")
    return name or ""


def _image_port(image: str) -> int:
    try:
        registry = parse_image(image).registry
    except UsageError as error:
        raise ConfigError(f"skills.refs: {error}") from error
    _, colon, given = registry.rpartition(":")
    port = int(given) if colon else 443
    if not 0 < port < 65536:
        raise ConfigError(f"skills.refs: {image!r}: {port} is no port")
    return port


def _literals(skills: Skills) -> dict[str, str]:
    """Variables of the init container whose values are in the spec."""
    env = (skills.init_container.env if skills.init_container else None) or []
    return {str(entry["name"]): str(entry["value"]) for entry in env if entry.get("value")}


def _ports(sources: Sources, environment: Mapping[str, str]) -> tuple[int, ...]:
    found: set[int] = set()
    for source in sources.sources:
        match source:
            case GitSource():
                found.add(git.place(source.url, insecure=sources.insecure).port)
            case OciSource():
                found.add(_image_port(source.image))
            case S3Source():
                origin = urlsplit(bucket.bucket_at(source, environment, insecure=sources.insecure).origin)
                found.add(origin.port or (80 if origin.scheme == "http" else 443))
            case ConfigMapSource():
                pass
    return tuple(sorted(found))
