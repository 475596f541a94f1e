"""What ClickHouse would answer when it refuses, and under which HTTP status."""

from __future__ import annotations

import re

_CODE = re.compile(r"Code: (\d+)\. DB::\w*Exception: ")
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]+)\)")

_BAD_REQUEST = {
    "BAD_ARGUMENTS", "BAD_QUERY_PARAMETER", "DUPLICATE_COLUMN", "ILLEGAL_AGGREGATION", "ILLEGAL_COLUMN",
    "ILLEGAL_TYPE_OF_ARGUMENT", "INCORRECT_DATA", "NUMBER_OF_ARGUMENTS_DOESNT_MATCH", "SYNTAX_ERROR",
    "THERE_IS_NO_COLUMN", "TOO_BIG_AST", "TOO_DEEP_AST", "TYPE_MISMATCH", "UNKNOWN_QUERY_PARAMETER",
    "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
}  # fmt: skip
_NOT_FOUND = {
    "NOT_FOUND", "SESSION_NOT_FOUND", "UNKNOWN_AGGREGATE_FUNCTION", "UNKNOWN_DATABASE",
    "UNKNOWN_DATABASE_ENGINE", "UNKNOWN_FORMAT", "UNKNOWN_FUNCTION", "UNKNOWN_IDENTIFIER", "UNKNOWN_SETTING",
    "UNKNOWN_STORAGE", "UNKNOWN_TABLE", "UNKNOWN_TYPE",
}  # fmt: skip
_STATUS = {
    "ACCESS_DENIED": 403,
    "AUTHENTICATION_FAILED": 403,
    "TIMEOUT_EXCEEDED": 408,
    "QUERY_IS_TOO_LARGE": 413,
    "NOT_IMPLEMENTED": 501,
    "CANNOT_SCHEDULE_TASK": 503,
    "SOCKET_TIMEOUT": 503,
}


class QueryError(Exception):
    """A refusal: ClickHouse's numeric code, its symbolic name and its message."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.name = name

    @classmethod
    def of_engine(cls, error: Exception) -> QueryError:
        """Read code and name out of the text chDB raises."""
        text = str(error)
        found = _CODE.search(text)
        if found is None:
            return cls(1002, "UNKNOWN_EXCEPTION", text)
        names = _NAME.findall(text)
        return cls(int(found.group(1)), names[-1] if names else "UNKNOWN_EXCEPTION", text[found.end() :].strip())

    @property
    def status(self) -> int:
        """The HTTP status that ClickHouse's own server gives this error."""
        if self.name in _BAD_REQUEST or self.name.startswith("CANNOT_PARSE_"):
            return 400
        return 404 if self.name in _NOT_FOUND else _STATUS.get(self.name, 500)

    def text(self, version: str) -> str:
        """The line clients parse: code, message, name, version."""
        message = str(self)
        name = "" if f"({self.name})" in message else f" ({self.name})"
        trailer = "" if "(version " in message else f" (version {version})"
        return f"Code: {self.code}. DB::Exception: {message}{name}{trailer}"
