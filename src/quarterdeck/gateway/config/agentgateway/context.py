"""What a translation carries along: where problems go, and how rules of the file are meant."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..document import Document, Path_, Problem, Report, show


@dataclass(frozen=True, slots=True)
class Context:
    """``strict``: the stricter meaning where the generations differ. ``open``: ``--allow-anonymous``."""

    document: Document
    report: Report
    strict: bool
    open: bool
    places: dict[str, Path_] = field(default_factory=dict[str, Path_])
    """See :class:`~quarterdeck.gateway.config.places.Places`."""

    def error(self, path: Path_, message: str) -> None:
        self.report.errors.append(Problem(self.document.line(path), show(path), message))

    def warn(self, path: Path_, message: str) -> None:
        self.report.warnings.append(Problem(self.document.line(path), show(path), message))

    def one_of(self, path: Path_, given: dict[str, object]) -> str:
        """The one name whose value is given; "" after an error."""
        names = [name for name, value in given.items() if value is not None]
        if len(names) == 1:
            return names[0]
        self.error(path, f"give exactly one of {', '.join(given)}" + (f", not {', '.join(names)}" if names else ""))
        return ""
