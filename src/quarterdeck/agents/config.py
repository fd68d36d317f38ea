"""The agent's configuration: kagent's ``config.json`` and ``agent-card.json`` (reference/kagent.md §3.1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quarterdeck.errors import ConfigError

from .journal.limits import Budget


class _Part(BaseModel):
    """Members we do not know are kept out, not refused: kagent adds some with each release."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class Model(_Part):
    type: str = "openai"
    model: str
    base_url: str = ""
    headers: dict[str, str] = {}
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float = Field(default=300.0, gt=0)
    """Seconds for one answer."""


class ToolParams(_Part):
    url: str
    headers: dict[str, str] = {}
    timeout: float = 30.0


class HttpTool(_Part):
    """One MCP server and what of it the agent uses; no names means all."""

    params: ToolParams
    tools: list[str] = []
    require_approval: list[str] = []
    allowed_headers: list[str] = []
    timeout: float | None = None
    """Seconds that one call may take, progress or not."""


class RemoteAgent(_Part):
    """Another agent, offered to the model as a tool."""

    name: str
    url: str
    headers: dict[str, str] = {}
    description: str = ""
    isolate_sessions: bool = False
    hosted: bool = False
    """Whether it runs on this host, too: the same message is then the same task."""
    timeout: float = 600.0


class RunsConfig(_Part):
    """What holds for each run of the agent."""

    budget: Budget = Budget.model_validate({})
    on_unknown_outcome: Literal["Ask", "Repeat", "Skip", "Fail"] = "Ask"
    """What happens to a tool call of which nobody knows whether it was carried out."""
    repeat_tools: list[str] = []
    """Tools that may be called twice though they do not say so themselves."""


class Summarizer(_Part):
    """``model``: the agent's own when unset."""

    model: Model | None = None
    prompt_template: str = ""


class Compaction(_Part):
    """kagent's fields; what they mean: :mod:`.context.compaction`."""

    compaction_interval: int = Field(default=5, ge=1)
    overlap_size: int = Field(default=2, ge=0)
    token_threshold: int | None = Field(default=None, ge=1)
    event_retention_size: int | None = Field(default=None, ge=0)
    summarizer: Summarizer | None = None


class ToolResults(_Part):
    """``page_size``: characters of a tool's result that the model gets at once; ``max_size``: that are kept."""

    page_size: int = Field(default=32_000, ge=500)
    max_size: int = Field(default=1_000_000, ge=500)


class ContextConfig(_Part):
    """What of a conversation a model call holds. ``max_tokens``: never more than these; None: no limit."""

    compaction: Compaction | None = None
    max_tokens: int | None = Field(default=None, ge=500)
    images: Literal["Auto", "Always", "Never"] = "Auto"
    tool_results: ToolResults = ToolResults()


class Embedding(_Part):
    """The embedding model, at the gateway."""

    provider: str = "openai"
    model: str
    base_url: str = ""


class MemoryConfig(_Part):
    """Long-term memory. Without ``embedding`` it goes by words alone."""

    ttl_days: int = Field(default=15, ge=1)
    embedding: Embedding | None = None


class AgentConfig(_Part):
    model: Model
    description: str = ""
    instruction: str = ""
    http_tools: list[HttpTool] = []
    sse_tools: list[HttpTool] = []
    remote_agents: list[RemoteAgent] = []
    stream: bool = False
    max_steps: int = Field(default=25, ge=1, le=200)
    """Model calls per user message; a model that never stops is ended here."""
    runs: RunsConfig = RunsConfig()
    memory: MemoryConfig | None = None
    context_config: ContextConfig = ContextConfig()
    output_schema: dict[str, Any] | None = None
    """JSON Schema of the agent's answers."""
    turn_timeout: float = Field(default=600.0, gt=0)
    """Seconds for one user message, tools and models included."""


def load(directory: Path) -> tuple[AgentConfig, dict[str, Any]]:
    """Configuration and card. Raises ConfigError naming file and field."""
    documents: list[Any] = []
    for name in ("config.json", "agent-card.json"):
        path = directory / name
        try:
            documents.append(json.loads(path.read_bytes()))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{path}: not JSON: {error}") from error
    try:
        return AgentConfig.model_validate(documents[0]), documents[1]
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{directory / 'config.json'}: {field}: {first['msg']}") from error
