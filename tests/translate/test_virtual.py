"""VirtualServers: what they are made of, what is exposed, and what is said of names that clash or lead nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.snapshot.virtual import NOTHING, Choice, ChosenServer, ChosenTool, Names, VirtualServer
from quarterdeck.translate.options import Options
from quarterdeck.translate.snapshot import World, compile_snapshot
from quarterdeck.translate.virtual import Resolution, offer, resolve

Json = dict[str, Any]


def obj(kind: str, name: str, spec: Json | None = None, namespace: str = "kagent", **metadata: Any) -> Json:
    return {"kind": kind, "metadata": {"name": name, "namespace": namespace, **metadata}, "spec": spec or {}}


def remote(name: str, namespace: str = "kagent", **spec: Any) -> Json:
    url = {"description": "", "url": f"http://{name}.{namespace}:80/mcp"}
    return obj("RemoteMCPServer", name, url | spec, namespace, labels={"team": "crm"})


def service(name: str, *, mcp: bool = True) -> Json:
    labels = {"team": "crm", **({"kagent.dev/mcp-service": "true"} if mcp else {})}
    return obj("Service", name, {"ports": [{"port": 80}]}, labels=labels)


def virtual(*servers: Json, **spec: Any) -> Json:
    return obj("VirtualServer", "support", {"servers": list(servers), **spec})


def ref(name: str, kind: str = "RemoteMCPServer", **more: Any) -> Json:
    return {"ref": {"kind": kind, "name": name, **more.pop("at", {})}, **more}


def world(*objects: Json) -> World:
    kinds = {"RemoteMCPServer": "remote_mcp_servers", "Service": "services", "VirtualServer": "virtual_servers"}
    found: dict[str, list[Json]] = {}
    for each in objects:
        found.setdefault(kinds[each["kind"]], []).append(each)
    return World(**found, namespaces=[{"metadata": {"name": "kagent"}}])  # type: ignore[arg-type]


def resolved(view: Json, *objects: Json) -> Resolution:
    return resolve(view, world(*objects, view).servers())


def test_by_reference_and_by_label() -> None:
    crm = {"selector": {"matchLabels": {"team": "crm"}}}
    shown = virtual(ref("time", tools={"include": ["get_*"]}), crm)
    found = resolved(shown, remote("time"), remote("mail"), service("crm"), service("web", mcp=False))
    assert found.server is not None and not found.missing and not found.clashes
    assert found.server.servers == (
        ChosenServer("crm", "Service/kagent/crm"),
        ChosenServer("mail", "RemoteMCPServer/kagent/mail"),
        ChosenServer("time", "RemoteMCPServer/kagent/time", Choice(("get_*",))),
    )
    assert found.server.servers[0].prompts == NOTHING


@pytest.mark.parametrize(
    ("servers", "words"),
    [
        ([ref("none")], "RemoteMCPServer kagent/none not found"),
        ([ref("web", "Service")], 'label it kagent.dev/mcp-service: "true"'),
        ([ref("closed", at={"namespace": "other"})], "does not allow namespace kagent"),
        ([ref("nobody", at={"namespace": "other"})], "does not allow namespace kagent"),
        ([ref("crm", "Service", at={"namespace": "other"})], "used in its own namespace only"),
    ],
)
def test_what_cannot_be_referred_to_is_told_and_left_out(servers: list[Json], words: str) -> None:
    found = resolved(
        virtual(*servers, ref("time")), remote("time"), service("web", mcp=False), remote("closed", "other")
    )
    assert [words in str(error) for error in found.missing] == [True]
    assert found.server is not None and [each.name for each in found.server.servers] == ["time"]


def test_another_namespaces_server_that_allows_it() -> None:
    open_ = remote("shared", "other", allowedNamespaces={"from": "All"})
    found = resolved(virtual(ref("shared", at={"namespace": "other"})), open_)
    assert not found.missing and found.targets == {"shared": ("RemoteMCPServer", "other", "shared")}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ([ref("a"), ref("a", "Service")], "servers[0] and servers[1] are both called a"),
        ([{"server": "a", "tool": "x", "name": "z"}, {"server": "a", "tool": "y", "name": "z"}], "exposed as z"),
        ([{"server": "a", "tool": "x"}, {"server": "a", "tool": "x", "title": "t"}], "under its own name"),
        ([{"server": "a", "tool": "x", "defaults": {"p": 1}, "fixed": {"p": 2}}], "p cannot be in defaults and in"),
    ],
)
def test_a_spec_that_nothing_can_make_right_is_not_served(spec: list[Json], words: str) -> None:
    view = virtual(ref("a"), tools=spec) if "tool" in spec[0] else virtual(*spec)
    found = resolved(view, remote("a"))
    assert found.server is None and words in str(found.error)
    assert compile_snapshot(world(view, remote("a")), Options()).virtual == ()


def test_servers_of_one_name_are_not_mixed_up() -> None:
    found = resolved(virtual({"selector": {}}, ref("time")), remote("time"), service("time"), remote("x"))
    assert found.targets == {"time": ("RemoteMCPServer", "kagent", "time"), "x": ("RemoteMCPServer", "kagent", "x")}
    assert found.clashes == [
        "Service kagent/time is left out: RemoteMCPServer/kagent/time is called time already; name it in servers with "
        "a name of its own"
    ]


def test_prefixes_go_by_what_is_written_so_no_tool_is_renamed_by_what_comes_and_goes() -> None:
    def prefixed(*servers: Json, **spec: Any) -> bool:
        found = resolved(virtual(*servers, **spec), remote("a"))
        assert found.server is not None
        return found.server.prefixed

    assert not prefixed(ref("a")) and prefixed(ref("a"), ref("gone")) and prefixed({"selector": {}})
    assert prefixed(ref("a"), prefixMode="Always") and not prefixed(ref("a"), ref("b"), prefixMode="Never")


def test_the_snapshot_holds_it_with_the_servers_that_are_served() -> None:
    broken = remote("broken", timeout="soon")
    found = compile_snapshot(world(virtual(ref("time"), ref("broken")), remote("time"), broken), Options()).virtual
    assert [(each.name, [s.name for s in each.servers], each.prefixed) for each in found] == [
        ("support", ["time"], True)
    ]


# -- names


def names(*tools: ChosenTool, prefixed: bool = True, **choices: Choice) -> Names:
    servers = tuple(ChosenServer(n, f"MCPServer/ns/{n}", choices.get(n, Choice())) for n in ("a", "a_b", "c"))
    return Names(VirtualServer("ns", "v", servers, tools, prefixed))


def test_what_is_listed_can_be_called_and_nothing_else() -> None:
    view = names(
        ChosenTool("a", "x", "short"), ChosenTool("c", "y", description="d"), ChosenTool("c", "z", "gone"),
        a=Choice(("x", "b_t")), c=Choice((), ("z",)),
    )  # fmt: skip
    shown, clashes = view.exposed({"a": ["x", "y", "b_t"], "a_b": ["t"], "c": ["y", "z"]})
    assert [(each.name, each.server, each.tool) for each in shown] == [
        ("a_b_t", "a_b", "t"), ("c_y", "c", "y"), ("short", "a", "x"),
    ]  # fmt: skip
    for each in shown:
        found = view.find(each.name)
        assert found is not None and (found.server, found.tool) == (each.server, each.tool)
    for name in ("a_x", "a_y", "x", "c_z", "gone", "c_other", "_x", "a_", "d_x", ""):
        assert view.find(name) is None, name
    assert [(clash.name, clash.kept) for clash in clashes] == [("a_b_t", ("a_b", "t"))]


def test_names_that_clash() -> None:
    view = names(ChosenTool("a", "x", "c_y"), prefixed=True)
    _, clashes = view.exposed({"a": ["x"], "c": ["y"]})
    assert clashes[0].kept == ("a", "x") and view.of("c", "y") == []
    twice = names(ChosenTool("a", "x", "one"), ChosenTool("c", "y", "one"))
    shown, clashes = twice.exposed({"a": ["x"], "c": ["y"]})
    assert shown == [] and clashes[0].kept is None and twice.find("one") is None
    flat = names(prefixed=False)
    shown, clashes = flat.exposed({"a": ["x", "u"], "c": ["x"]})
    assert [each.name for each in shown] == ["u"]
    assert clashes[0].tools == (("a", "x"), ("c", "x"))


def test_globs_are_globs_only() -> None:
    view = names(a=Choice(("get_*", "a[b]c", "x?")))
    assert [own for own in ("get_", "get_it", "a[b]c", "abc", "x1", "x", "x12") if view.chooses("a", "tools", own)] == [
        "get_", "get_it", "a[b]c", "x1",
    ]  # fmt: skip


# -- what its servers offer


def test_what_is_offered_and_what_is_missing() -> None:
    schema = {
        "properties": {"p": {}, "q": {}, "h": {"type": "string", "x-mcp-header": "H"}}, "required": ["q"],
    }  # fmt: skip
    tools = [{"name": "x", "description": "does", "inputSchema": schema}, {"name": "y"}, {"name": "out"}]
    entries = (
        ChosenTool("a", "x", "renamed", fixed={"p": 1}),
        ChosenTool("a", "nope", "n"),
        ChosenTool("a", "out", "o"),
        ChosenTool("a", "x", "second", defaults={"zz": 1}, hidden=("q",)),
        ChosenTool("a", "x", "third", fixed={"h": "v"}),
        ChosenTool("silent", "x", "s"),
    )
    view = VirtualServer("ns", "v", (ChosenServer("a", "MCPServer/ns/a", Choice(None, ("out",))),), entries, False)
    found = offer(view, {"a": tools})
    assert [(tool["name"], tool["tool"], tool["description"]) for tool in found.tools] == [
        ("renamed", "x", "does"), ("second", "x", "does"), ("third", "x", "does"), ("y", "y", ""),
    ]  # fmt: skip
    assert found.missing == [
        "tools[1]: a offers no tool nope",
        "tools[2]: out of a is excluded by servers[].tools.exclude",
        "tools[3]: x has no parameter zz",
        "tools[3]: q of x is required: a hidden one needs a value in defaults",
        "tools[4]: h of x travels in a header (x-mcp-header): it cannot be filled in",
    ]
