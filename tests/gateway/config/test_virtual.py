"""``virtual:`` of files: the snapshot's virtual servers, and what clients see of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarterdeck.snapshot import virtual as v

from ..policy.cookbook import Kitchen
from .conftest import Reader

FILE = """
mcp:
  port: 3000
  prefixMode: never
  failureMode: failOpen
  targets:
  - {name: one, mcp: {host: "http://tools.example.org:3000/mcp"}}
  - {name: two, mcp: {host: "http://tools-next.example.org:3000/mcp"}}
  virtual:
    title: Support
    instructions: Be kind.
    servers:
    - name: one
      tools: {include: ["a*", echo], exclude: [admin]}
      prompts: {include: [hello]}
      resources: {exclude: ["file://*"]}
    - {name: two, tools: {include: []}}
    tools:
    - server: one
      tool: echo
      name: say
      title: Say
      description: Says it.
      annotations: {readOnlyHint: true}
      defaults: {zone: UTC}
      fixed: {limit: 3}
      hidden: [zone]
    - {server: two, tool: next, name: more}
"""


def test_every_field(reader: Reader) -> None:
    found = reader.snapshot(FILE)
    (virtual,) = found.virtual
    assert virtual == v.VirtualServer(
        "file",
        "default.mcp.backend0",
        (
            v.ChosenServer(
                "one",
                "Target/file/one",
                v.Choice(("a*", "echo"), ("admin",)),
                v.Choice(("hello",)),
                v.Choice(None, ("file://*",)),
            ),
            v.ChosenServer("two", "Target/file/two", v.Choice(())),
        ),
        (
            v.ChosenTool(
                "one",
                "echo",
                "say",
                "Say",
                "Says it.",
                {"readOnlyHint": True},
                {"zone": "UTC"},
                {"limit": 3},
                ("zone",),
            ),
            v.ChosenTool("two", "next", "more"),
        ),
        prefixed=False,
        fail_open=True,
        title="Support",
        instructions="Be kind.",
    )
    group = found.listeners[0].routes[0].backends[0].mcp
    assert group is not None and group.virtual == "file/default.mcp.backend0"
    assert [target.name for target in group.targets] == ["one", "two"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("- name: one\n", "- name: on\n", "virtual.servers[0].name: no target of that name; there are one, two"),
        ("- {name: two, tools: {include: []}}", "- {name: one}", "virtual.servers[1].name: one is there already"),
        (
            "server: two, tool",
            "server: three, tool",
            "virtual.tools[1].server: no such server here; there are one, two",
        ),
        ("name: more", "name: say", "virtual.tools[1].name: 'say' is the name of another tool, too"),
        ("name: more", "name: ''", "virtual.tools[1].name: '' is empty"),
        ("hidden: [zone]", "hiden: [zone]", "virtual.tools[0].hiden: unknown field; did you mean hidden?"),
    ],
)
def test_what_cannot_be_shown(reader: Reader, old: str, new: str, told: str) -> None:
    assert old in FILE and f": mcp.{told}" in reader.errors(FILE.replace(old, new))


async def test_clients_see_the_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kitchen = Kitchen(tmp_path)
    try:
        await kitchen.serve(FILE)
        assert await kitchen.does("nobody", "lists") == "add, more, say"
        assert await kitchen.does("nobody", "calls say") == "result"
        assert await kitchen.does("the server", "was called echo") == "1"
        assert await kitchen.does("nobody", "calls more") == "result"
        for hidden in ("fail", "echo", "next"):
            assert await kitchen.does("nobody", f"calls {hidden}") == "unknown tool"
    finally:
        await kitchen.stop()
