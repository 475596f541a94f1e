"""What a PromQL expression asks for: its metrics with their matchers, and the labels that it groups and joins by.

A tokenizer, no parser: that an expression is well formed is for Prometheus to say. Of a well-formed one nothing escapes
it, because whatever name is no function, keyword, label or string is taken for a metric. Grafana's variables may stand
where numbers do, and in strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|\#[^\n]*)
    | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
    | (?P<number>[\d$][\w.]*)
    | (?P<name>[a-zA-Z_][\w:]*)
    | (?P<operator>=~|!~|!=|==|<=|>=|[-+*/%^<>=(){}\[\],@:.])
    """,
    re.VERBOSE,
)
_WITH_LABELS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "bool", "offset", "atan2", "inf", "nan"}


@dataclass(frozen=True)
class Selector:
    """A metric as it is asked for. `matchers`: (label, operator, value)."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


@dataclass
class Asked:
    """What an expression asks for."""

    selectors: list[Selector] = field(default_factory=list)
    grouped: set[str] = field(default_factory=set)
    """Labels it groups or joins by."""
    strings: set[str] = field(default_factory=set)
    """Arguments of functions: label_replace makes labels of them."""


def asked(expression: str) -> Asked:
    """Raises ValueError for a character that is no PromQL."""
    found, tokens = Asked(), list(_tokens(expression))
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if kind == "string":
            found.strings.add(text[1:-1])
        elif kind == "name" and text.lower() in _WITH_LABELS:
            if following == "(":
                end = tokens.index(("operator", ")"), at)
                found.grouped |= {each for kind, each in tokens[at:end] if kind == "name"} - {text}
                at = end
        elif kind == "name" and text.lower() not in _WORDS and following != "(" and following not in _WITH_LABELS:
            end = tokens.index(("operator", "}"), at) if following == "{" else at
            found.selectors.append(Selector(text, _matchers(tokens[at + 1 : end])))
            at = end
        elif text == "{":
            raise ValueError(f"a selector without a metric: {expression}")
        at += 1
    return found


def _matchers(tokens: list[tuple[str, str]]) -> tuple[tuple[str, str, str], ...]:
    inner = [text for _, text in tokens if text not in "{},"]
    return tuple((inner[at], inner[at + 1], inner[at + 2][1:-1]) for at in range(0, len(inner), 3))


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if match is None:
            raise ValueError(f"not PromQL at {at}: {expression}")
        at = match.end()
        if match.lastgroup and match.lastgroup != "space":
            yield match.lastgroup, match.group()
