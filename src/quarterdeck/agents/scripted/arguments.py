"""Arguments of a call, taken from a request as the tool's schema asks for them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from .phrases import free_words
from .request import Request
from .schema import MISSING, Parameter, Tool
from .text import STOP, VERBS, bag, split, stem, stems
from .values import LOCATORS, Value, shape

_ORIGIN = frozenset(map(stem, bag("from start begin origin old former initial")))
_GOAL = frozenset(map(stem, bag("to into end target new final result output")))
_NUMERIC = frozenset(("number", "integer"))
_BASE = {
    "quoted": 1.5, "slashed": 1.4, "uri": 1.3, "glob": 1.4, "file": 1.3, "code": 1.0, "ident": 1.0, "entity": 1.0,
    "mail": 1.2, "number": 0.3, "phrase": 0.6, "result": 1.2,
}  # fmt: skip
_FLAG_WORDS = frozenset(map(stem, bag("include enable with is use should allow show only do")))
_NEGATIONS = bag("no not without dont don't never exclude skip")
_OPTIONAL_BAR = 0.65
_WIDEST = 12


@dataclass
class Filling:
    """What a request gives a tool. ``missing``: required parameters without a value; ``used``: the literals taken;
    ``sure``: how many required parameters a literal fits; ``cued``: how many the words around it tell;
    ``single``: lists that got one member only; ``assumed``: values the schema supplied;
    ``phrases``: free words taken as arguments."""

    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    missing: list[Parameter] = field(default_factory=list[Parameter])
    used: list[Value] = field(default_factory=list[Value])
    sure: int = 0
    cued: int = 0
    single: int = 0
    assumed: int = 0
    phrases: list[str] = field(default_factory=list[str])


def fill(tool: Tool, request: Request) -> Filling:
    """The arguments of one call. Nothing is invented: what is absent and has no default is ``missing``."""
    filling = Filling()
    _fill_object(tool.parameters, request, filling.arguments, filling, tool, top=True)
    return filling


def _fill_object(
    parameters: tuple[Parameter, ...], request: Request, out: dict[str, Any], filling: Filling, tool: Tool, top: bool
) -> None:
    for parameter in parameters:
        _choices_and_flags(parameter, request, out, filling, tool)
    _assign(parameters, request, out, filling)
    for parameter in parameters:
        if parameter.label not in out and _structured(parameter) and (parameter.required or top):
            _fill_structure(parameter, request, out, filling, tool)
    for parameter in parameters:
        if parameter.required and parameter.label not in out:
            _last_resort(parameter, request, out, filling, tool, top)


def _structured(parameter: Parameter) -> bool:
    return bool(parameter.properties) or bool(parameter.items and parameter.items.properties)


def _choices_and_flags(
    parameter: Parameter, request: Request, out: dict[str, Any], filling: Filling, tool: Tool
) -> None:
    """Enumerations whose member the request mentions, and flags it mentions."""
    asked = frozenset(request.words) | {s for v in request.values if isinstance(v.value, str) for s in stems(v.value)}
    if parameter.enum:
        member = _member(parameter, request, asked)
        if member is None:
            return
        own = stems(str(member)) & frozenset(tool.label_stems)
        if parameter.required or (parameter.words & asked) or not own:
            out[parameter.label] = member
            filling.sure += parameter.required
            filling.cued += 1
            filling.used += [v for v in request.values if v.text.lower() == str(member).lower()]
    elif "boolean" in parameter.types:
        flag = parameter.words - _FLAG_WORDS
        explicit = re.search(rf"\b{re.escape(parameter.label)}\s*(?:=|:|is|to)?\s*(true|false)\b", request.text, re.I)
        if explicit:
            out[parameter.label] = explicit.group(1).lower() == "true"
        elif flag and flag <= asked and not flag <= frozenset(tool.label_stems):
            out[parameter.label] = not _negated(request, flag)
            filling.cued += 1


def _member(parameter: Parameter, request: Request, asked: frozenset[str]) -> Any:
    """The member of an enumeration the request gives: literally, else by its words."""
    text = request.text.lower()
    literal = [m for m in parameter.enum if re.search(rf"(?<!\w){re.escape(str(m).lower())}(?!\w)", text)]
    if literal:
        return max(literal, key=lambda m: len(str(m)))
    for member in parameter.enum:
        own = stems(str(member))
        if isinstance(member, str) and own and own <= asked:
            return member
    return None


def _negated(request: Request, flag: frozenset[str]) -> bool:
    found = re.findall(r"[\w']+", request.bare.lower())
    places = [i for i, w in enumerate(found) if stem(w) in flag]
    return any(w in _NEGATIONS for i in places for w in found[max(0, i - 3) : i])


def _assign(parameters: tuple[Parameter, ...], request: Request, out: dict[str, Any], filling: Filling) -> None:
    """Give the literals to the parameters so that they fit best together."""
    open_ = [p for p in parameters if p.label not in out and not p.enum and not _structured(p)]
    free = [v for v in request.values if v not in filling.used]
    rated = _rated(open_, free, request)
    taken: set[int] = set()
    for i, j in pairing({k: score for k, (score, _) in rated.items()}):
        parameter, value, cue = open_[i], free[j], rated[i, j][1]
        if j in taken:
            continue
        given = [(j, value)]
        if "array" in parameter.types:
            given += _coordinated(parameter, free, j, request, taken)
        converted = [convert(parameter, v) for _, v in given]
        out[parameter.label] = converted if "array" in parameter.types and value.kind != "json" else converted[0]
        taken.update(k for k, _ in given)
        filling.used += [v for _, v in given]
        filling.sure += parameter.required and (
            value.kind != "number" or bool(_NUMERIC & set(_member_types(parameter)))
        )
        filling.single += "array" in parameter.types and len(given) == 1 and value.kind != "json"
        filling.cued += cue >= _OPTIONAL_BAR


def _member_types(parameter: Parameter) -> tuple[str, ...]:
    return parameter.items.types if parameter.items is not None else parameter.types


def _rated(
    parameters: list[Parameter], values: list[Value], request: Request
) -> dict[tuple[int, int], tuple[float, float]]:
    """(parameter, value) → (score, the part of it that words around the value give)."""
    located = any(v.kind in LOCATORS for v in values)
    rated: dict[tuple[int, int], tuple[float, float]] = {}
    for i, parameter in enumerate(parameters):
        for j, value in enumerate(values):
            fit = affinity(parameter, value, request)
            if fit is None or (not parameter.required and fit[1] < _OPTIONAL_BAR):
                continue
            score = sum(fit) + 0.3 * parameter.required - 0.1 * abs(i - j)
            if i == 0 and value.kind in LOCATORS:
                score += 0.6
            elif i == 0 and located and value.kind == "quoted":
                score -= 0.3
            rated[i, j] = (score, fit[1])
    return rated


def pairing(scores: dict[tuple[int, int], float]) -> list[tuple[int, int]]:
    """One-to-one pairs: surest first, then exchanged while that raises the sum. In order of the first members."""
    partner: dict[int, int] = {}
    for (i, j), score in sorted(scores.items(), key=lambda e: (-e[1], e[0])):
        if score > 0 and i not in partner and j not in partner.values():
            partner[i] = j
    rows = sorted({i for i, _ in scores})[:_WIDEST]
    for _ in range(_WIDEST):
        best: tuple[float, dict[int, int]] = (1e-9, {})
        for a in rows:
            for b in rows:
                gain, change = _exchange(scores, partner, a, b)
                best = max(best, (gain, change), key=lambda g: g[0])
        if not best[1]:
            break
        partner |= best[1]
        partner = {i: j for i, j in partner.items() if j >= 0}
    return sorted(partner.items())


def _exchange(
    scores: dict[tuple[int, int], float], partner: dict[int, int], a: int, b: int
) -> tuple[float, dict[int, int]]:
    """What is gained when ``a`` gets what ``b`` has, and ``b`` what ``a`` had or nothing."""
    if a == b or b not in partner or (a, partner[b]) not in scores:
        return 0.0, {}
    old = scores[b, partner[b]] + (scores[a, partner[a]] if a in partner else 0.0)
    back = partner.get(a, -1)
    returned = scores.get((b, back), -1.0 if back >= 0 else 0.0)
    if returned < 0:
        back, returned = -1, 0.0
    return scores[a, partner[b]] + returned - old, {a: partner[b], b: back}


def _coordinated(
    parameter: Parameter, free: list[Value], first: int, request: Request, taken: set[int]
) -> list[tuple[int, Value]]:
    """Further members of a list: the same kind, joined by commas and "and"."""
    found: list[tuple[int, Value]] = []
    end = free[first].end
    for k in range(first + 1, len(free)):
        value = free[k]
        between = request.text[end : value.start] if value.start >= 0 else " and "
        joined = re.fullmatch(r"[\s,;]*(?:and|or|&|plus)?\s*(?:the\s+)?(?:\w+\s+)?", between)
        if k in taken or not joined or affinity(parameter, value, request) is None:
            break
        found.append((k, value))
        end = value.end
    return found


def affinity(parameter: Parameter, value: Value, request: Request) -> tuple[float, float] | None:
    """How well a literal fits a parameter: by type and build, and by the words around it. None when it cannot."""
    base = _type_fit(parameter, value)
    if base is None:
        return None
    before, after = request.before(value), request.after(value)
    cue = 0.0
    label = parameter.words - STOP
    near = [stem(w) for w in before] + [stem(w) for w in after]
    if label and any(w in label for w in near):
        cue += 2.0 * len(label & set(near)) / len(label)
    hits = {w for w in near if w in parameter.described and w not in VERBS and w not in label}
    cue += 0.7 * len(hits)
    return base, cue + _role(parameter, before, request)


def _role(parameter: Parameter, before: list[str], request: Request) -> float:
    """From X to Y: what a preposition says about the parameter it leads to."""
    leading = next((w for w in before[:2] if w in ("from", "to", "into", "with")), "")
    if leading == "with" and "replac" not in request.words:
        leading = ""
    if not leading:
        return 0.0
    own = frozenset(split(parameter.label))
    if leading in own:
        return 3.0
    goal = leading != "from"
    for known in (frozenset(stem(w) for w in own), parameter.described):
        origin, aim = bool(known & _ORIGIN), bool(known & _GOAL)
        if origin != aim:
            return 2.0 if aim == goal else -1.5
    return 0.0


def _type_fit(parameter: Parameter, value: Value) -> float | None:
    types = parameter.types
    if "array" in types and value.kind != "json":
        return _type_fit(parameter.items, value) if parameter.items is not None else 0.5
    if value.kind == "json":
        wanted = "array" if isinstance(value.value, list) else "object"
        return 3.0 if wanted in types or not types else None
    if _NUMERIC & set(types) and "string" not in types:
        number = _number(value)
        if number is None or ("number" not in types and not float(number).is_integer()):
            return None
        return 2.0
    if types and "string" not in types:
        return None
    return _text_fit(parameter, value)


def _text_fit(parameter: Parameter, value: Value) -> float | None:
    """Fit of a literal as a string."""
    if parameter.format in ("uri", "uri-reference", "iri"):
        return 3.0 if value.kind == "uri" or (value.kind == "quoted" and "://" in value.text) else None
    if parameter.format == "email":
        return 3.0 if value.kind == "mail" else None
    if parameter.fallback is not None and value.text == parameter.fallback:
        return 2.5
    if parameter.shapes:
        if shape(value.text) in parameter.shapes:
            return 3.0
        return 2.0 if completed(parameter, value) is not None else None
    return _BASE.get(value.kind, 1.0)


def completed(parameter: Parameter, value: Value) -> str | None:
    """The example a named thing is the last part of, as ``York`` would be of ``Old/York``."""
    if value.kind not in ("entity", "quoted"):
        return None
    wanted = re.sub(r"\W+", "_", value.text.strip()).lower()
    for sample in (*parameter.samples, *parameter.kin):
        parts = re.split(r"[^\w]+", sample.lower())
        if len(parts) > 1 and parts[-1] == wanted:
            return sample
    return None


def _number(value: Value) -> int | float | None:
    if isinstance(value.value, (int, float)) and not isinstance(value.value, bool):
        return value.value
    if value.kind == "quoted" and re.fullmatch(r"-?\d{1,15}(\.\d{1,15})?", value.text):
        return float(value.text) if "." in value.text else int(value.text)
    return None


def convert(parameter: Parameter, value: Value) -> Any:
    """The literal as the parameter's type wants it."""
    types = parameter.types
    if "array" in types and value.kind != "json" and parameter.items is not None:
        return convert(parameter.items, value)
    if value.kind == "json":
        return value.value
    if _NUMERIC & set(types):
        number = _number(value)
        if number is not None:
            return int(number) if "number" not in types or float(number).is_integer() else number
    if not types:
        return value.value
    if parameter.shapes and shape(value.text) not in parameter.shapes:
        return completed(parameter, value) or value.text
    return value.text


def _fill_structure(parameter: Parameter, request: Request, out: dict[str, Any], filling: Filling, tool: Tool) -> None:
    """An object, or a list of objects, from the literals left; several named subjects make several objects."""
    whole = next((v for v in request.values if v.kind == "json" and _type_fit(parameter, v) is not None), None)
    if whole is not None:
        out[parameter.label] = whole.value
        filling.used.append(whole)
        return
    inner = parameter.items.properties if parameter.items is not None else parameter.properties
    attempt = Filling(used=list(filling.used))
    built: dict[str, Any] = {}
    _fill_object(inner, request, built, attempt, tool, top=False)
    if attempt.missing or not built or len(attempt.used) == len(filling.used):
        return
    objects = [built]
    lead = next((p for p in inner if p.required and p.types == ("string",)), None)
    if parameter.items is not None and lead is not None:
        for value in _siblings(built.get(lead.label), request, attempt.used):
            objects.append({**built, lead.label: value.text})
            attempt.used.append(value)
    out[parameter.label] = objects if parameter.items is not None else built
    filling.used, filling.cued = attempt.used, filling.cued + 1
    filling.sure += parameter.required and attempt.sure > 0
    filling.phrases += attempt.phrases


def _siblings(lead: Any, request: Request, used: list[Value]) -> list[Value]:
    """Values joined by "and" to the one that became ``lead``."""
    values = list(request.values)
    start = next((i for i, v in enumerate(values) if v.text == lead), None)
    if start is None:
        return []
    found: list[Value] = []
    for value in values[start + 1 :]:
        previous = values[values.index(value) - 1]
        between = request.text[previous.end : value.start]
        if value.kind != values[start].kind or value in used or not re.fullmatch(r"[\s,]*(?:and)?\s*", between):
            break
        found.append(value)
    return found


def _last_resort(
    parameter: Parameter, request: Request, out: dict[str, Any], filling: Filling, tool: Tool, top: bool
) -> None:
    """A required parameter no literal fits: free words, then what the schema offers, else it is missing."""
    if parameter.types in (("string",), ()) and not parameter.enum and not parameter.shapes and not parameter.format:
        phrase = free_words(parameter, request, tool, filling.used, labelled=not top)
        if phrase:
            out[parameter.label] = phrase
            filling.phrases.append(phrase)
            return
    if parameter.types == ("array",) and parameter.items and parameter.items.types == ("string",) and top:
        phrase = "" if parameter.items.enum else free_words(parameter, request, tool, filling.used, labelled=False)
        if phrase:
            filling.phrases.append(phrase)
            out[parameter.label] = [p for p in re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", phrase) if p]
            return
    if parameter.default is not MISSING:
        out[parameter.label] = parameter.default
    elif parameter.fallback is not None and not _offered(parameter, request, filling):
        out[parameter.label] = parameter.fallback
    elif parameter.examples:
        out[parameter.label] = parameter.examples[0]
    elif parameter.enum and not _offered(parameter, request, filling):
        out[parameter.label] = parameter.enum[0]
    elif parameter.types == ("array",) and not parameter.minimum_items and not top and len(out) > 1:
        out[parameter.label] = []
    else:
        filling.missing.append(parameter)
        return
    filling.assumed += 1


def _offered(parameter: Parameter, request: Request, filling: Filling) -> bool:
    """Whether the user did give something here, only nothing that fits."""
    return any(v.kind in ("entity", "quoted", "slashed", "ident") and v not in filling.used for v in request.values)
