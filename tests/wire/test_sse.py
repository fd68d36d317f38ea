"""Server-sent events, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.errors import UpstreamError
from quarterdeck.wire.sse import SseParser, encode, with_data

texts = st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\r", b"").replace(b"\x00", b"")), max_size=6)


@given(texts, st.sampled_from([b"\n", b"\r\n"]), st.data())
def test_events_survive_any_cut(messages: list[bytes], newline: bytes, data: st.DataObject) -> None:
    stream = b"".join(encode(m, event=b"message", ident=b"7") for m in messages).replace(b"\n", newline)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser = SseParser()
    events = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += parser.feed(stream[start:end])
    assert [e.data for e in events] == messages
    assert b"".join(e.raw for e in events) == stream
    assert all(e.id == b"7" and e.event == b"message" for e in events)


@given(st.binary(max_size=200))
def test_any_bytes_are_taken(data: bytes) -> None:
    parser = SseParser()
    assert b"".join(e.raw for e in parser.feed(data)) + parser.pending == data


def test_other_data_keeps_the_rest() -> None:
    (event,) = SseParser().feed(b"id: 1\r\nevent: message\r\ndata: old\r\nretry: 5\r\n\r\n")
    assert with_data(event, b"new") == b"id: 1\nevent: message\nretry: 5\ndata: new\n\n"


def test_an_event_is_bounded() -> None:
    with pytest.raises(UpstreamError, match="larger than 10 bytes"):
        SseParser(10).feed(b"data: 0123456789")
