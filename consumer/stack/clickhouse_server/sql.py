"""As much of ClickHouse's grammar as HTTP needs: where an INSERT's data begins, what answers with rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

_TOKEN = re.compile(
    rb"""(?P<skip>\s+|--[^\n]*|\#[!\ ][^\n]*|/\*.*?\*/)
    |(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`)
    |(?P<word>[A-Za-z_]\w*)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_DATA_START = re.compile(rb"[ \t\f]*;?[ \t\f]*\r?\n?")
_TRAILING_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*(?:\bSETTINGS\b[^;]*)?;?\s*$", re.IGNORECASE)
_ANSWERS_WITH_ROWS = {"SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "CHECK"}
_STREAMABLE = {"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"}


@dataclass(frozen=True)
class InsertHead:
    """The statement in front of an INSERT's data."""

    statement: str
    """Without its FORMAT clause."""
    format: str
    data_start: int
    """Index of the data's first byte."""


def split_insert(head: bytes) -> InsertHead | None:
    """Find where the data of `INSERT INTO … FORMAT X` begins; None for every other statement.

    `INSERT … VALUES` and `INSERT … SELECT` are plain statements: None too.
    """
    words: list[bytes] = []
    depth = format_at = 0
    for kind, token, start, end in _tokens(head):
        if token in b"()":
            depth += 1 if token == b"(" else -1
        if kind != "word" or depth:
            continue
        word = token.upper()
        if not words and word != b"INSERT":
            return None
        if word in (b"VALUES", b"SELECT", b"WITH", b"WATCH"):
            return None
        if words and words[-1] == b"FORMAT" and b"INTO" in words[:-1]:
            data = _DATA_START.match(head, end)
            assert data is not None  # noqa: S101 - the pattern matches the empty string
            return InsertHead(head[:format_at].decode(), token.decode(), data.end())
        format_at = start
        words.append(word)
    return None


def first_word(statement: bytes) -> str:
    """The keyword a statement begins with, in capitals; empty when it has none."""
    return next((token.decode().upper() for kind, token, _, _ in _tokens(statement) if kind == "word"), "")


def answers_with_rows(keyword: str) -> bool:
    return keyword in _ANSWERS_WITH_ROWS


def output_format(statement: bytes) -> str | None:
    """The format a statement's own FORMAT clause asks for."""
    match = _TRAILING_FORMAT.search(statement)
    return match.group(1).decode() if match else None


def is_streamable(keyword: str, fmt: str | None) -> bool:
    """Whether blocks encoded one by one, put end to end, make one valid answer."""
    return keyword in ("SELECT", "WITH") and fmt in _STREAMABLE


def has_second_statement(statement: bytes) -> bool:
    """Whether something follows the first `;`. The server refuses that, the embedded engine would run it."""
    ended = False
    for _, token, _, _ in _tokens(statement):
        if ended and token != b";":
            return True
        ended = ended or token == b";"
    return False


def creates_temporary_table(statement: bytes) -> bool:
    words = (token.upper() for kind, token, _, _ in _tokens(statement) if kind == "word")
    return list(islice(words, 2)) == [b"CREATE", b"TEMPORARY"]


def quote(text: str) -> str:
    """A string literal; as a setting's value ClickHouse turns it into the setting's own type."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _tokens(statement: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    for match in _TOKEN.finditer(statement):
        kind = match.lastgroup or ""
        if kind != "skip":
            yield kind, match.group(), match.start(), match.end()
