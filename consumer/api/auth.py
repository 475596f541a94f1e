"""Who asks, and what that allows: bearer tokens with scopes. Of a token only its SHA-256 is ever kept."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from consumer.api.problems import Refused
from consumer.errors import ConfigurationError
from consumer.settings import Settings

Scope = Literal["read", "score", "outcomes", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "score", "outcomes", "admin")
"""`read` what is stored, and metrics; `score` transactions and decide them; send `outcomes`; `admin` all of it."""
TOKEN_BYTES = 32

_SCHEME = "bearer "
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Token(_Strict):
    """One line of the file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]


class _TokenFile(_Strict):
    tokens: Annotated[list[Token], Field(min_length=1)]

    @field_validator("tokens")
    @classmethod
    def _distinct(cls, tokens: list[Token]) -> list[Token]:
        for what in ("name", "sha256"):
            if len({getattr(each, what) for each in tokens}) < len(tokens):
                raise ValueError(f"two tokens have the same {what}")
        return tokens


@dataclass(frozen=True)
class Caller:
    """Whoever asks: a token's name, or an address of this machine."""

    name: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes


class Callers:
    """Tells who asks, by the tokens of a file; without one, everybody on this machine may ask everything."""

    def __init__(self, tokens: list[Token] | None) -> None:
        self._tokens = (
            None
            if tokens is None
            else [(bytes.fromhex(each.sha256), Caller(each.name, each.scopes)) for each in tokens]
        )

    @classmethod
    def of(cls, settings: Settings) -> Callers:
        """Raises ConfigurationError for a file that cannot be used, and for none where other machines can ask."""
        if settings.api_tokens_file is not None:
            return cls(read_tokens(settings.api_tokens_file))
        if not is_loopback(settings.api_host):
            raise ConfigurationError(
                f"BNPL_API_HOST {settings.api_host} lets other machines in, and nobody would be asked who they are: "
                "set BNPL_API_TOKENS_FILE (`bnpl-shadow api token` makes tokens), or listen on 127.0.0.1"
            )
        return cls(None)

    @property
    def known(self) -> bool:
        """Whether tokens are asked for."""
        return self._tokens is not None

    def who(self, authorization: str | None, host: str | None, address: str) -> Caller | None:
        """Who asks, by the headers Authorization and Host; None for no token, or one that nobody has.

        Raises Refused for a Host that is not this machine's where no tokens are asked for: a web page that a browser
        here was led to asks under the name of its own site.
        """
        if self._tokens is None:
            if (host or "").rpartition(":")[0].lower() not in _LOCAL_NAMES and (host or "") not in _LOCAL_NAMES:
                raise Refused(403, "foreign-host", "without tokens only requests to this machine's own name are served")
            return Caller(address, frozenset(SCOPES))
        if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
            return None
        digest = hashlib.sha256(authorization[len(_SCHEME) :].strip().encode()).digest()
        found = None
        for theirs, caller in self._tokens:  # all of them, whichever it is: the time taken tells nothing
            if hmac.compare_digest(digest, theirs):
                found = caller
        return found


def unknown_caller(authorization: str | None) -> Refused:
    if authorization is None:
        return Refused(401, "unauthenticated", "this needs a bearer token", headers={"WWW-Authenticate": "Bearer"})
    challenge = 'Bearer error="invalid_token"'
    return Refused(401, "unauthenticated", "this is no token that is known", headers={"WWW-Authenticate": challenge})


def out_of_scope(scope: Scope) -> Refused:
    challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
    detail = f"the token lacks the scope {scope}"
    return Refused(403, "out-of-scope", detail, headers={"WWW-Authenticate": challenge})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def new_token(name: str, scopes: list[Scope]) -> tuple[str, Token]:
    """A token that nobody has, to be shown once, and what is kept of it. Raises ConfigurationError for a bad name."""
    secret = secrets.token_urlsafe(TOKEN_BYTES)
    try:
        kept = Token(name=name, sha256=hashlib.sha256(secret.encode()).hexdigest(), scopes=frozenset(scopes))
    except ValidationError as error:
        raise ConfigurationError(f"{name!r} is no name of a token: {error.errors()[0]['msg']}") from None
    return secret, kept


def read_tokens(path: Path) -> list[Token]:
    """Raises ConfigurationError that names each fault of the file, and quotes nothing of it."""
    try:
        return _TokenFile.model_validate_json(path.read_bytes()).tokens
    except OSError as error:
        raise ConfigurationError(f"BNPL_API_TOKENS_FILE {path}: {error.strerror}") from error
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
        raise ConfigurationError("\n".join([f"BNPL_API_TOKENS_FILE {path} cannot be used:", *faults])) from None
