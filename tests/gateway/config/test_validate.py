"""``qd gateway --validate-only`` as a command: exit codes, output, no network, no processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


def test_serving_gateways_load_no_yaml_parser() -> None:
    """Of those that have a control plane."""
    code = "import sys, quarterdeck.gateway.__main__; print(sorted({'yaml', 'typer'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
