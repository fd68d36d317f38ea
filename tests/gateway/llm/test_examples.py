"""The ModelConfigs in examples/agents/models, one of each provider, are what the gateway can call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from quarterdeck.resources.model_config import PROVIDERS

from .conftest import model

FOLDER = Path(__file__).parents[3] / "examples" / "agents" / "models"
FOUND: list[dict[str, Any]] = [
    document for path in sorted(FOLDER.glob("*.yaml")) for document in yaml.safe_load_all(path.read_text())
]
ACCOUNT = {"type": "service_account", "client_email": "a@p", "private_key": "x", "token_uri": "https://t.example/t"}
SECRET = {
    "key.json": json.dumps(ACCOUNT), "client_id": "i", "client_secret": "s", "ca.crt": "", "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "s",
    **dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "AZURE_OPENAI_API_KEY"), "sk-1"),
}  # fmt: skip


@pytest.mark.parametrize("document", FOUND, ids=[d["metadata"]["name"] for d in FOUND])
def test_an_example_can_be_called(document: dict[str, Any]) -> None:
    found = model(document["spec"], SECRET)
    assert not found.error
    assert found.base_url.startswith("http")


def test_every_provider_has_an_example() -> None:
    assert {document["spec"]["provider"] for document in FOUND} == set(PROVIDERS) - {"Scripted"}
