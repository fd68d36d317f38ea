"""What an agent's configuration says about how its model sees conversations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..config import AgentConfig
from ..journal.journal import Journal
from ..model import ChatModel, Message
from .compaction import Rule
from .conversation import Conversation
from .media import seeing
from .output import OutputSchema
from .paging import Pages
from .summary import Summarizer
from .window import Window

_CHARACTERS = 2
"""Of conversation to summarize at once, for each token of the ceiling: well below it, whatever the script."""


class Views:
    """Raises ConfigError for an output schema that is none."""

    def __init__(self, config: AgentConfig, model: ChatModel) -> None:
        settings = config.context_config
        compaction = settings.compaction
        self._limit = settings.max_tokens
        self._rule, self._summarizer = Rule(), None
        if compaction is not None:
            self._rule = Rule(
                compaction.compaction_interval, compaction.overlap_size, compaction.token_threshold,
                compaction.event_retention_size,
            )  # fmt: skip
            chosen = compaction.summarizer
            if chosen is not None:
                by = model.other(chosen.model) if chosen.model is not None else model
                most = (self._limit or 100_000) * _CHARACTERS
                self._summarizer = Summarizer(by, chosen.prompt_template, most)
        self.pages = Pages(settings.tool_results.page_size, settings.tool_results.max_size)
        self.see = seeing(config.model.model, settings.images)
        self.output = OutputSchema(config.output_schema) if config.output_schema is not None else None

    def window(
        self, conversation: Conversation, journal: Journal, system: Sequence[str], lead: Sequence[Message] = ()
    ) -> Window:
        """Of a run. ``system``: the parts of the system message; ``lead`` comes right before what the user asks."""
        said = [*system, *([self.output.instruction] if self.output is not None else ())]
        text = "\n\n".join(part for part in said if part)
        return Window(conversation, journal, text, lead, self._rule, self._limit, self._summarizer)

    def answer(self, text: str) -> tuple[str, dict[str, Any]]:
        """The text of an answer, and what else the run's end says of it: the document where it must be one."""
        if self.output is None:
            return text, {}
        value, _ = self.output.read(text)
        return json.dumps(value, ensure_ascii=False), {"output": value}
