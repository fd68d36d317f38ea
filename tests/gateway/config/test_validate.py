# ruff: noqa: E501 - messages and files as they are
"""``qd gateway --validate-only`` as a command: exit codes, output, no network, no processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quarterdeck.errors import ConfigError
from quarterdeck.gateway.config.standalone import FileOptions
from quarterdeck.gateway.config.validate import validated

QD = Path(sys.executable).with_name("qd")
GOOD = """
binds:
- port: 3000
  listeners:
  - routes:
    - policies:
        jwtAuth: {issuer: i, jwks: {url: "https://nowhere.invalid/jwks"}}
        extAuthz: {host: "nowhere.invalid:1", protocol: {http: {}}}
      backends:
      - mcp:
          targets:
          - {name: a, stdio: {cmd: /no/such/command}}
          - {name: b, mcp: {host: "https://nowhere.invalid/mcp"}}
"""


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([QD, "gateway", *arguments], capture_output=True, text=True, cwd=cwd, timeout=50)


def test_a_valid_file_is_0_and_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(GOOD)
    done = run("-f", "c.yaml", "--validate-only", "--compat", "now", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == (
        "c.yaml is valid (agentgateway, today): 1 listener(s), 1 route(s), 2 MCP server(s), "
        "1 of them run by the gateway"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"], "checking leaves nothing behind"


def test_an_invalid_file_is_1_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(GOOD.replace("port:", "prt:") + "frob: 1\n")
    done = run("-f", "c.yaml", "--validate-only", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert "c.yaml:3: binds[0].prt: unknown field; did you mean port?" in done.stderr
    assert "c.yaml:14: frob: unknown field" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [(), ("-f", "c.yaml", "-c", "x"), ("-f", "c.yaml", "--compat", "old"), ("--frob",), ("--validate-only",)],
)
def test_wrong_usage_is_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run(*arguments, cwd=tmp_path).returncode == 2


def test_inline_text_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = run("-c", '{"mcpServers": {"a": {"command": "x"}}}', "--validate-only", cwd=tmp_path)
    assert done.returncode == 0 and "a client's mcp.json" in done.stdout
    gone = run("-f", "gone.yaml", "--validate-only", cwd=tmp_path)
    assert gone.returncode == 1 and "gone.yaml: No such file or directory" in gone.stderr


POLICIES = (
    "binds:\n- port: 1\n  listeners:\n  - routes:\n    - policies:\n        {}\n      backends: [{{host: 'b:80'}}]\n"
)
WEB = "binds[0].listeners[0].routes[0].policies."


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("backendAuth: {key: {value: k, location: {cookie: {name: x}}}}", "backendAuth: route/default/route0: backendAuth can"),
        ("basicAuth: {htpasswd: nonsense}", "basicAuth: route/default/route0: basicAuth: line 1 of htpasswd"),
        ("extAuthz: {host: 'ftp://x', protocol: {http: {}}}", "extAuthz: route/default/route0: extAuth: 'ftp://x'"),
        ("transformations: {request: {set: {content-length: '\"1\"'}}}", "transformations: route/default/route0/trans"),
        ("requestHeaderModifier: {set: {'x y': '1'}}", "requestHeaderModifier.set.x y: 'x y' is no name of a header"),
        ('requestHeaderModifier: {add: {x: "a\\nb"}}', "requestHeaderModifier.add.x: holds a line break"),
        ("jwtAuth: {issuer: i, jwks: '{\"keys\":[{\"kty\":\"oct\",\"k\":\"eHh4\"}]}'}", "jwtAuth.jwks: no key of it can"),
        ("cors: {allowOrigins: [nonsense]}", "cors.allowOrigins[0]: 'nonsense' is no origin; write https://"),
        ("csrf: {additionalOrigins: ['https://a', b]}", "csrf.additionalOrigins[1]: 'b' is no origin"),
        ("directResponse: {status: 42}", "directResponse.status: 42 is no status of an answer"),
        ("retry: {codes: [503, 9999]}", "retry.codes[1]: 9999 is no status"),
        ("retry: {codes: [503], attempts: 0}", "retry.attempts: must be at least 1"),
        ("localRateLimit: [{maxTokens: -5, fillInterval: 1s}]", "localRateLimit[0].maxTokens: must not be negative"),
        ("requestRedirect: {scheme: gopher}", "requestRedirect.scheme: 'gopher' must be http or https"),
        ("urlRewrite: {path: {full: nope}}", "urlRewrite.path.full: 'nope' must begin with /"),
        ("authorization: {rules: ['requst.path == 1']}", "authorization.rules[0]: CEL: there is no variable 'requst'; did"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_told_where_it_stands(tmp_path: Path, body: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validated(FileOptions(inline=POLICIES.format(body), compat="now"), {}, tmp_path)
    assert str(caught.value).startswith(f"<inline>:6: {WEB}{told}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("binds:\n- port: 1\n  listeners: [{hostname: 'a b', routes: []}]", "3: binds[0].listeners[0].hostname: 'a b' is no"),
        ("gateways: {default: {port: 1}}\nroutes:\n- hostnames: ['*x']\n  backends: [{host: b}]", "3: routes[0].hostnames[0]:"),
        ("gateways: {default: {port: 1}}\nroutes:\n- matches: [{method: 'G T'}]\n  backends: [{host: b}]", "3: routes[0].matches[0].meth"),
        ("config:\n  logging: {level: loud}\n" + POLICIES.format("cors: {}"), "2: config.logging.level: 'loud' must be LEVEL"),
        ("binds:\n- port: 1\n  listeners:\n  - {protocol: HTTPS, tls: {cert: x, key: x}, routes: []}", "4: binds[0].listeners[0]: listener bind/1/"),
        ("binds: !!python/name:os.system ''", "1: the tag tag:yaml.org,2002:python/name:os.system means nothing here"),
        ("binds:\n\t- port: 1", "2: not YAML: found character '\\t' that cannot start any token; indent with spaces"),
        ("a: 1\nbinds: [\0]", "2: not YAML: the character 0 is not allowed"),
        ("x: &x {port: 1}\nbinds:\n- <<: *x\n  listeners: []", "3: binds[0].<<: merge keys are no part of YAML 1.2"),
    ],
)  # fmt: skip
def test_every_problem_has_its_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "x").write_text("no certificate")
    with pytest.raises(ConfigError) as caught:
        validated(FileOptions(inline=text, compat="now"), {}, tmp_path)
    assert f"<inline>:{told}" in str(caught.value)


def test_a_route_that_answers_nobody_is_a_warning(tmp_path: Path) -> None:
    text = POLICIES.format("localRateLimit: [{fillInterval: 1s}]").replace("'b:80'", "'b:80', weight: 0")
    told = validated(FileOptions(inline=text, compat="now"), {}, tmp_path).warnings
    assert any("maxTokens is 0: every request is refused" in one for one in told)
    assert any("backends: none has a weight above 0" in one for one in told)


def test_dollar_signs_of_an_openapi_document_are_its_own(tmp_path: Path) -> None:
    schema = (
        '{"openapi": "3.0.0", "paths": {"/x": {"get": {"operationId": "a", "requestBody": {"$ref": "#/c"}}}}, "c": {}}'
    )
    text = f"mcp:\n  targets:\n  - {{name: a, openapi: {{host: 'h:1', schema: '{schema}'}}}}\n"
    (server,) = validated(FileOptions(inline=text, compat="now"), {}, tmp_path).snapshot.mcp
    assert server.openapi is not None and server.openapi["paths"]["/x"]["get"]["requestBody"] == {"$ref": "#/c"}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.yaml", b"", "empty.yaml: the file is empty"),
        ("binary.yaml", b"binds: []\n\xff\xfe", "binary.yaml:2: not text in UTF-8; save it as UTF-8"),
        ("large.yaml", b"# " + b"x" * 9_000_000, "large.yaml: larger than 8 MiB"),
        ("text.yaml", b"hello", "text.yaml:1: expected a mapping, found 'hello'"),
        ("two.yaml", b"binds: []\n---\nbinds: []", "two.yaml:2: not YAML: but found another document"),
        ("deep.yaml", b"[" * 5000, "deep.yaml: not YAML: nested too deeply"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        validated(FileOptions(file), {}, tmp_path)
    assert str(caught.value) == f"{tmp_path}/{told}"


def test_a_directory_is_no_file_and_a_device_is_not_read_to_its_end(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path}: Is a directory"):
        validated(FileOptions(tmp_path), {}, tmp_path)
    with pytest.raises(ConfigError, match="/dev/zero: larger than 8 MiB"):
        validated(FileOptions(Path("/dev/zero")), {}, tmp_path)


def test_serving_gateways_load_no_yaml_parser() -> None:
    """Of those that have a control plane."""
    code = "import sys, quarterdeck.gateway.__main__; print(sorted({'yaml', 'typer'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
