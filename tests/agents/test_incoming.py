"""Who sends a request, as the gateway says it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from starlette.datastructures import Headers
from starlette.requests import Request

from quarterdeck.agents.incoming import DEFAULT_USER, gateway_caller
from quarterdeck.gateway.a2a.endpoint import _user
from quarterdeck.gateway.call import Call
from quarterdeck.gateway.policy.principal import Principal


@pytest.mark.parametrize("name", ["alice", "José", "山田 太郎", "a+b@example.com"])
def test_a_users_name_arrives_as_the_gateway_has_it(name: str) -> None:
    call = cast(Call, SimpleNamespace(principal=Principal("https://idp.example x", username=name), headers={}))
    key, _, value = _user(call, None).rstrip(b"\r\n").partition(b": ")
    request = Request({"type": "http", "headers": Headers(raw=[(key, value)]).raw})
    assert gateway_caller(request).user == name


def test_without_a_name_it_is_the_one_user_there_is() -> None:
    assert gateway_caller(Request({"type": "http", "headers": []})).user == DEFAULT_USER


def test_latin_1_is_understood_too() -> None:
    assert gateway_caller(Request({"type": "http", "headers": [(b"x-user-id", b"Jos\xe9")]})).user == "José"
