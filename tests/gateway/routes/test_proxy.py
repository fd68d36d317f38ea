"""Plain HTTP through the gateway: what reaches the service, and what comes back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.options import Options
from quarterdeck.snapshot import policies as p
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import Policies
from quarterdeck.wire.http import Exchange

from ..conftest import Rig
from .conftest import Front, echo, route, seen


async def test_a_request_and_its_answer_pass_through(front: Front, start: Any) -> None:
    svc = await start()
    await front.serve(front.listener(route(svc.to())))
    got = await seen(await front.ask("/a/b?c=%20d", method="PUT", body=b"hello", headers={"x-own": "1"}))
    assert (got["method"], got["target"], got["body"]) == ("PUT", "/a/b?c=%20d", "hello")
    assert got["fields"]["host"] == "x.example"
    assert got["fields"]["x-own"] == "1"
    assert got["fields"]["x-forwarded-for"] == "127.0.0.1"
    assert got["fields"]["x-forwarded-host"] == "x.example"
    assert got["fields"]["x-forwarded-proto"] == "http"
    assert got["fields"]["traceparent"].startswith("00-")


async def test_what_belongs_to_a_connection_or_to_us_is_not_passed_on(front: Front, start: Any) -> None:
    svc = await start()
    await front.serve(front.listener(route(svc.to())))
    headers = {
        "connection": "keep-alive, x-secret", "x-secret": "1", "te": "trailers", "upgrade": "h2c",
        "proxy-authorization": "x", "x-quarterdeck-principal": "root", "x_forwarded_for": "6.6.6.6",
        "x-forwarded-for": "1.2.3.4", "x-forwarded-proto": "https", "forwarded": "for=6.6.6.6",
    }  # fmt: skip
    fields = (await seen(await front.ask(headers=headers)))["fields"]
    assert fields["x-forwarded-for"] == "1.2.3.4, 127.0.0.1"
    assert fields["x-forwarded-proto"] == "http"
    left = {"connection", "x-secret", "te", "upgrade", "proxy-authorization", "x-quarterdeck-principal",
            "x_forwarded_for", "forwarded"}  # fmt: skip
    assert not left & set(fields)


@pytest.mark.parametrize(("hops", "scheme", "host"), [((), "http", "x"), (("127.0.0.0/8",), "https", "public")])
async def test_proxies_in_front_are_believed_when_they_are_trusted(
    tmp_path: Path, start: Any, hops: tuple[str, ...], scheme: str, host: str
) -> None:
    (tmp_path / "snapshot.json").write_bytes(b"{}")
    options = Options(
        None, None, None, None, None, config=tmp_path / "snapshot.json", data_dir=tmp_path / "data",
        audit_file=tmp_path / "audit.jsonl", trusted_hops=hops,
    )  # fmt: skip
    gateway = Gateway(options)
    await gateway.start()
    front = Front(Rig(gateway, tmp_path / "audit.jsonl"))
    svc = await start()
    away = Policies(redirect=p.Redirect(path="/y"))
    moved = route(policies=away, name="default/m", matches=(r.Match(r.PathMatch("exact", "/m")),))
    await front.serve(front.listener(route(svc.to()), moved, public_port=443 if hops else 80))
    told = {"x-forwarded-proto": "https", "x-forwarded-host": "public.example"}
    fields = (await seen(await front.ask(headers=told)))["fields"]
    assert (fields["x-forwarded-proto"], fields["x-forwarded-host"]) == (scheme, f"{host}.example")
    assert (await front.ask("/m", headers=told)).header(b"location") == f"{scheme}://{host}.example/y".encode()
    front.pool.close()
    await gateway.stop(0)


async def test_no_route_no_listener_and_bad_requests(front: Front, start: Any) -> None:
    svc = await start()
    only = route(svc.to(), hostnames=("a.example",), matches=(r.Match(r.PathMatch("exact", "/a")),))
    await front.serve(front.listener(only, hostname="*.example"))
    assert (await front.ask("/a", host="a.example")).status == 200
    for target, host, status in [
        ("/b", "a.example", 404), ("/a", "b.example", 404), ("/a", "a.test", 404), ("/%2e%2e/a", "a.example", 400),
        ("/a", "a b", 400),
    ]:  # fmt: skip
        response = await front.ask(target, host=host)
        body = msgspec.json.decode(await response.read())
        assert (response.status, body["error"]["code"]) == (status, status), (target, host)
    assert len(svc.seen) == 1
    answer = await front.raw(b"GET /a HTTP/1.1\r\nhost: a.example\r\nhost: b.example\r\nconnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    answer = await front.raw(b"GET http://a.example/a HTTP/1.1\r\nhost: z.test\r\nconnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


async def test_normalised_is_what_the_service_gets(front: Front, start: Any) -> None:
    svc = await start()
    admin = route(name="default/admin", matches=(r.Match(r.PathMatch("prefix", "/admin")),),
                  policies=Policies(direct_response=p.DirectResponse(403, "no")))  # fmt: skip
    await front.serve(front.listener(route(svc.to()), admin))
    for target in ("/admin", "//admin", "/x/../admin", "/%61dmin", "/.//admin/x", "/admin%2Fx"):
        assert (await front.ask(target)).status == 403, target
    got = await seen(await front.ask("/x//y/./z%2Fw"))
    assert got["target"] == "/x/y/z%2Fw"


async def test_weights_are_kept_exactly_and_dead_backends_keep_their_share(front: Front, start: Any) -> None:
    one, two = await start(name="one"), await start(name="two")
    empty = r.RouteBackend(weight=1, http=r.HttpBackend("empty"))
    broken = r.RouteBackend(weight=1, error="no such Service default/x")
    await front.serve(front.listener(route(one.to(weight=5), two.to(weight=3), empty, broken, two.to(weight=0))))
    statuses = [(await front.ask()).status for _ in range(20)]
    assert (len(one.seen), len(two.seen), statuses.count(503), statuses.count(500)) == (10, 6, 2, 2)


async def test_no_backend_at_all_is_500(front: Front, start: Any) -> None:
    svc = await start()
    await front.serve(
        front.listener(route(), name="none"),
    )
    assert (await front.ask(listener="none")).status == 500
    await front.serve(front.listener(route(svc.to(weight=0))))
    assert (await front.ask()).status == 500


async def test_another_address_is_tried_when_nobody_answers(front: Front, start: Any) -> None:
    gone, svc = await start(), await start()
    await gone.server.stop(0)
    backend = r.HttpBackend("two", (r.Endpoint("127.0.0.1", gone.port), r.Endpoint("127.0.0.1", svc.port)))
    await front.serve(front.listener(route(r.RouteBackend(http=backend))))
    assert [(await front.ask(method="POST", body=b"x")).status for _ in range(4)] == [200] * 4


async def test_nobody_there_is_502(front: Front, start: Any) -> None:
    gone = await start()
    await gone.server.stop(0)
    await front.serve(front.listener(route(gone.to())))
    assert (await front.ask()).status == 502


async def test_header_rules_both_ways(front: Front, start: Any) -> None:
    def reply(exchange: Exchange) -> None:
        exchange.respond(
            200, msgspec.json.encode(dict(exchange.headers[:0])) or b"{}", [(b"x-drop", b"1"), (b"x-add", b"1")]
        )

    svc = await start()
    back = await start(reply)
    rules = Policies(
        request_headers=p.HeaderModifier(add=(("X-A", "2"),), set=(("X-S", "s"),), remove=("X-R",)),
        response_headers=p.HeaderModifier(add=(("X-Add", "2"),), set=(("X-New", "n"),), remove=("X-Drop",)),
    )
    await front.serve(front.listener(
        route(svc.to(policies=rules), policies=rules, matches=(r.Match(r.PathMatch("prefix", "/a")),)),
        route(back.to(policies=rules), policies=rules, name="default/back"),
    ))  # fmt: skip
    fields = (await seen(await front.ask("/a", headers={"x-a": "1", "x-s": "old", "x-r": "r"})))["fields"]
    assert (fields["x-a"], fields["x-s"], "x-r" in fields) == ("1,2", "s", False)
    response = await front.ask("/b")
    assert (response.header(b"x-add"), response.header(b"x-new"), response.header(b"x-drop")) == (b"1,2", b"n", None)


async def test_rewrites(front: Front, start: Any) -> None:
    svc = await start()

    def at(prefix: str, rewrite: p.Rewrite) -> r.Route:
        rules = Policies(rewrite=rewrite)
        return route(svc.to(policies=rules), policies=rules, name=f"default{prefix}",
                     matches=(r.Match(r.PathMatch("prefix", prefix)),))  # fmt: skip

    await front.serve(front.listener(
        at("/prefix", p.Rewrite(prefix="/new")), at("/full", p.Rewrite(path="/all")),
        at("/host", p.Rewrite(host="other.example")), at("/own", p.Rewrite(auto_host=True)),
    ))  # fmt: skip
    assert (await seen(await front.ask("/prefix/x?y=1")))["target"] == "/new/x?y=1"
    assert (await seen(await front.ask("/full/x?y=1")))["target"] == "/all?y=1"
    got = await seen(await front.ask("/host/x"))
    assert (got["fields"]["host"], got["fields"]["x-forwarded-host"]) == ("other.example", "x.example")
    assert (await seen(await front.ask("/own")))["fields"]["host"] == f"127.0.0.1:{svc.port}"


async def test_redirects_and_direct_responses(front: Front) -> None:
    gone = Policies(redirect=p.Redirect(scheme="https", status=301))
    said = Policies(direct_response=p.DirectResponse(418, "teapot"))
    await front.serve(front.listener(
        route(policies=gone),
        route(policies=said, name="default/said", matches=(r.Match(r.PathMatch("exact", "/said")),)),
        public_port=80,
    ))  # fmt: skip
    response = await front.ask("/a?b=c", host="x.example:8080")
    assert (response.status, response.header(b"location")) == (301, b"https://x.example/a?b=c")
    response = await front.ask("/said")
    assert (response.status, await response.read()) == (418, b"teapot")


async def test_copies_go_to_the_mirror_and_cost_the_client_nothing(front: Front, start: Any) -> None:
    copied = asyncio.Event()

    def slow(exchange: Exchange) -> None:
        if len(mirror.seen) == 2:
            copied.set()

    svc = await start()
    mirror = await start(slow)
    rule = r.Route("default/r", backends=(svc.to(),), mirrors=(r.Mirror(mirror.backend(), 50.0),))
    await front.serve(front.listener(rule))
    for _ in range(4):
        assert (await front.ask("/m", method="POST", body=b"b")).status == 200
    await asyncio.wait_for(copied.wait(), 30)
    assert [(e.method, e.target, e.body) for e in mirror.seen] == [("POST", b"/m", b"b")] * 2


async def test_a_body_larger_than_the_route_takes(front: Front, start: Any) -> None:
    svc = await start()
    small, large = Policies(max_body=10), Policies(max_body=20)
    await front.serve(front.listener(
        route(svc.to(policies=small), policies=small, matches=(r.Match(r.PathMatch("prefix", "/small")),)),
        route(svc.to(policies=large), policies=large, name="default/large"),
    ))  # fmt: skip
    statuses = [(await front.ask(t, method="POST", body=b"x" * 15)).status for t in ("/small", "/large")]
    assert statuses == [413, 200]
    front.pool.close()
    assert len(svc.seen) == 1


async def test_head_and_bodiless_answers(front: Front, start: Any) -> None:
    def reply(exchange: Exchange) -> None:
        exchange.respond(204 if exchange.target == b"/none" else 200, b"12345")

    svc = await start(reply)
    await front.serve(front.listener(route(svc.to())))
    response = await front.ask(method="HEAD")
    assert (response.status, response.header(b"content-length"), await response.read()) == (200, b"5", b"")
    response = await front.ask("/none")
    assert (response.status, await response.read()) == (204, b"")


async def test_an_old_client_gets_no_chunks(front: Front, start: Any) -> None:
    def reply(exchange: Exchange) -> None:
        exchange.start(200)
        exchange.write(b"hello")
        exchange.finish()

    svc = await start(reply)
    await front.serve(front.listener(route(svc.to())))
    answer = await front.raw(b"GET / HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b"hello"
    assert b"chunked" not in head


async def test_a_stream_is_held_back_while_the_client_reads_slowly(front: Front, start: Any) -> None:
    sent = 0
    done = asyncio.Event()

    async def pour(exchange: Exchange) -> None:
        nonlocal sent
        exchange.start(200)
        try:
            for _ in range(2000):
                await exchange.send(b"x" * 32768)
                sent += 32768
        finally:
            done.set()

    svc = await start(pour)
    await front.serve(front.listener(route(svc.to())))
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port(), limit=1024)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    before = -1
    while before != sent:  # until nothing more fits
        before = sent
        await asyncio.sleep(0.1)
    assert sent < 32 * 1024 * 1024
    writer.transport.abort()
    await asyncio.wait_for(done.wait(), 30)


async def test_an_answer_that_breaks_off_is_no_whole_answer(front: Front, start: Any) -> None:
    def reply(exchange: Exchange) -> None:
        exchange.start(200, [(b"content-length", b"100")])
        exchange.write(b"half")
        exchange.abort()

    svc = await start(reply)
    await front.serve(front.listener(route(svc.to())))
    answer = await front.raw(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert answer.partition(b"\r\n\r\n")[2] in (b"half", b"")


@pytest.mark.parametrize("limit", [0, 3])
async def test_a_response_larger_than_its_rule_allows(front: Front, start: Any, limit: int) -> None:
    svc = await start(lambda exchange: exchange.respond(200, b"12345"))
    rules = Policies(max_response=limit)
    await front.serve(front.listener(route(svc.to(policies=rules), policies=rules)))
    assert (await front.ask()).status == (502 if limit else 200)


async def test_requests_are_recorded_with_their_route(front: Front, start: Any) -> None:
    svc = await start(echo, "default/svc")
    await front.serve(front.listener(route(svc.to(), name="default/r", rule="one")))
    await (await front.ask("/a")).read()
    record = front.rig.records()[-1]
    assert (record["kind"], record["server"], record["method"], record["status"]) == ("http", "default/svc", "GET", 200)
    assert record["decision"] == "allow"


async def test_requests_are_counted_by_route(front: Front, start: Any) -> None:
    svc = await start(echo, "default/svc")
    await front.serve(front.listener(route(svc.to(), name="default/r", rule="one"), gateway="ns/gw"))
    await (await front.ask("/a")).read()
    await (await front.ask("/b", host="bad host")).read()
    lines = front.gateway.registry.render().decode().splitlines()
    known = 'gateway="ns/gw",listener="web",route="default/r",route_rule="one"'
    request = (
        f'agentgateway_requests_total{{protocol="http",backend="default/svc",method="GET",status="200",{known}}} 1'
    )
    assert request in lines
    assert f'agentgateway_request_duration_seconds_count{{protocol="http",backend="default/svc",{known}}} 1' in lines
    unknown = 'gateway="unknown",listener="unknown",route="unknown",route_rule="unknown"'
    assert f'agentgateway_requests_total{{protocol="http",backend="",method="GET",status="400",{unknown}}} 1' in lines
