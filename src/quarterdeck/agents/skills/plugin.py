"""The Pod's skills as a plug-in of its agent."""

from __future__ import annotations

import logging

from quarterdeck.skills.probe import unusable

from .library import library
from .sandbox import ScriptSandbox
from .tools import Skills

log = logging.getLogger("quarterdeck.agents.skills")


def plugins() -> list[Skills]:
    """One plug-in, or none where the Pod has no skills. Raises ConfigError for a skill that is not sound."""
    found = library()
    if found is None:
        return []
    why = unusable() if found.has_scripts else ""
    log.info("skills: %s", ", ".join(found.skills))
    if why:
        log.warning("scripts of skills are not run: %s", why)
    return [Skills(found, None if why else ScriptSandbox())]
