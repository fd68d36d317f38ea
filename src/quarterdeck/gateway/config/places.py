"""Where in a file things of a snapshot come from: rules are compiled from the snapshot, and their errors name it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .document import Document, Path_, Problem, show


@dataclass(frozen=True, slots=True)
class Places:
    """``at``: how errors begin that are about something (``route/default/web``) → where that is written."""

    document: Document
    at: dict[str, Path_] = field(default_factory=dict[str, Path_])

    def located(self, message: str) -> str:
        """The message with file, line and path, as near as they are known."""
        labels = [label for label in self.at if message.startswith(label) and not message[len(label) :][:1].isalnum()]
        if not labels:
            return Problem(0, "", message).text(self.document.name)
        path = self._policy(self.at[max(labels, key=len)], message)
        return Problem(self.document.line(path), show(path), message).text(self.document.name)

    def _policy(self, path: Path_, message: str) -> Path_:
        """The policy below ``path`` that the message names, if it names one."""
        named: list[Path_] = []
        for known in self.document.lines:
            below = known[len(path) :]
            near = known[: len(path)] == path and below[:-1] in ((), ("policies",))
            policy = below[-1] if near and below else None
            if isinstance(policy, str) and policy.rstrip("sz") in message:  # extAuthz, transformations
                named.append(known)
        return max(named, key=lambda known: len(str(known[-1])), default=path)
