"""Which CEL rules a definition may carry: a real API server's type checker and ours refuse the same ones.

What ours does not know: the types inside optionals, and the price of a rule (a real server estimates it from maxItems,
maxLength and maxProperties, and refuses what could become too expensive; test_crds.py has it price all of ours).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quarterdeck import errors
from quarterdeck.kube import resource as k

from .servers import NEEDS_REAL, ServedApi, serving

pytestmark = [NEEDS_REAL, pytest.mark.timeout(120)]
OBJECT = {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}
SPEC: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "on": {"type": "boolean"},
        "when": {"type": "string", "format": "date-time"},
        "span": {"type": "string", "format": "duration"},
        "words": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 5}},
        "things": {"type": "array", "maxItems": 5, "items": OBJECT},
        "labels": {"type": "object", "maxProperties": 5, "additionalProperties": {"type": "string", "maxLength": 5}},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "half": {**OBJECT, "x-kubernetes-preserve-unknown-fields": True},
        "port": {"x-kubernetes-int-or-string": True},
        "a-b": {"type": "string", "maxLength": 5},
        "in": {"type": "string", "maxLength": 5},
    },
}
GOOD = """
self.name == 'a'
self.count < 1.5
self.count > 1 && self.ratio < 2.0
has(self.name) && self.name.startsWith('a')
self.words.all(w, w.size() > 1)
self.things.exists(t, t.port > 1 && t.name == self.name)
self.things.map(t, t.name).filter(n, n != '').size() > 0
self.labels.all(key, self.labels[key] == 'x')
'a' in self.labels && 'b' in self.words
self.labels['a'].startsWith('b')
self.half.name == 'a'
type(self.port) == int ? self.port > 1 : self.port.contains('%')
self.a__dash__b == self.__in__
self.when < timestamp('2030-01-01T00:00:00Z')
self.span > duration('1s')
!has(self.on) || self.on
self.on ? self.name == 'a' : self.count == 1
self.words == ['a', 'b']
self.words + ['c'] != []
oldSelf.name == self.name
self.words.isSorted() && self.words.indexOf('a') == 0
self.count in [1, 2]
self.name.matches('^a+$')
size(self.words) == size(self.things)
self.count == int(self.name)
self.words[0] == 'a'
quantity('1Gi').isGreaterThan(quantity('1Mi'))
string(self.count) == self.name
self.things[0].name == 'a'
optional.of(self.name).orValue('x') == 'x'
self.words.all(w, self.things.exists(t, t.name == w))
self.things.map(t, t.name == 'a', t.port).sum() > 1
(self.on ? self.words : ['a']) == []
(self.on ? self.things : []).size() > 0
[self.name, self.a__dash__b].all(x, x != '')
{'a': self.name}['a'] == 'b'
{1: 'a'}[1] == 'a'
dyn(self.name) == 1
self.words.map(w, w + 'a').size() == 1
self.words.indexOf(self.name) == 0
has(self.open) || has(self.half.name)
""".strip().splitlines()
BAD = """
self.nope == 1
self.name == 1
self.count == 'a'
self.name + 1 == 'a1'
self.count + self.ratio > 1.0
self.count.startsWith('a')
self.name > 1
self.words.all(w, w > 1)
self.words.exists(w, w.port == 1)
self.things.all(t, t.name == 1)
self.things.all(t, t.nope == 1)
self.things.filter(t, t.port).size() == 0
self.things.map(t, t.name) == [1]
size(self.count) == 1
self.name
self.count
self.words
self.name ? true : false
self.on ? 'a' : 1
self.on ? 'a' : 'b'
has(self.nope)
has(self.name.nope)
self.words['a'] == 'b'
self.words[0] == 1
self.labels[1] == 'b'
1 in self.labels
1 in self.words
self.name in self.count
self.name in self.name
self.name.matches(1)
self.open.a == 'b'
self.half.other == 'a'
!self.name
-self.name == 'a'
self.on && self.name
self.on || self.count
self.words + [1] != []
self.words == [1]
[1, 'a'].size() == 2
{'a': 1, 'b': 'c'}.size() == 2
self.words.sum() == 'a'
self.name.nope()
nope(self.name)
self == 'a'
self.when == 'a'
self.span == 1
self.when < self.span
self.when + self.when == self.when
duration(1) == self.span
self.a-b == 'x'
self.in == 'x'
self.things == self.words
self.on > true ? 1 : 2
self.words.map(w, w, w) == []
other.name == 'a'
self.name[0] == 'a'
self.words.indexOf(1) == 0
self.name.split(1).size() == 0
self.count % self.ratio == 1
self.ratio % 2.0 == 1.0
self.things.all(t, t.port == self.name)
self.words.exists_one(w, w == 1)
self.labels.all(key, key > 1)
self.labels.exists(key, self.labels[key] > 1)
timestamp(self.count).getFullYear('UTC') == 'a'
self.name.size() == 'a'
""".strip().splitlines()


def definition(rule: str) -> dict[str, Any]:
    spec = SPEC | {"x-kubernetes-validations": [{"rule": rule, "message": "m"}]}
    schema = {"type": "object", "properties": {"spec": spec}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.test.example"},
        "spec": {
            "group": "test.example", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }  # fmt: skip


async def refusal(api: ServedApi, rule: str) -> str:
    """Where the rule is refused and how, or nothing."""
    try:
        await api.client.request("POST", k.CRD.path(), params={"dryRun": "All"}, body=definition(rule))
    except errors.Invalid as error:
        return f"{[cause.field for cause in error.causes]} {error.message}"
    return ""


async def test_the_same_rules_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "ours").mkdir()
    async with serving("real", tmp_path / "real") as real, serving("embedded", tmp_path / "ours") as ours:
        said = {rule: (await refusal(real, rule), await refusal(ours, rule)) for rule in [*GOOD, *BAD]}
    assert not {rule: answers for rule, answers in said.items() if rule in GOOD and any(answers)}
    accepted = [f"{rule}\n  real: {theirs[:400]}" for rule, (theirs, mine) in said.items() if theirs and not mine]
    assert not accepted, "ours accepts what is refused:\n" + "\n".join(accepted)
    refused = [f"{rule}\n  ours: {mine}" for rule, (theirs, mine) in said.items() if mine and not theirs]
    assert not refused, "ours refuses what is accepted:\n" + "\n".join(refused)
    assert [rule for rule in BAD if not said[rule][0]] == []
