"""API keys and their scopes; the server has only their hashes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeAlias, get_args

from hypclip.errors import ConfigError, DataError
from hypclip.files import read_text
from serve.errors import Forbidden, Unauthorized

Scope: TypeAlias = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_OPEN = ("/", "/healthz", "/readyz", "/docs", "/openapi.json")
_OPEN_BELOW = ("/docs/", "/explorer/")
_LENGTH = 32


@dataclass(frozen=True)
class ApiKey:
    """A key by its hash. `admin` may do what `write` may, and `write` what `read` may."""

    name: str
    scope: Scope
    sha256: str


def new_key() -> tuple[str, str]:
    """Return a key of 256 random bits, and the hash that goes into the file of keys.

    A plain hash is enough: what is hashed cannot be guessed, as a password could.
    """
    key = "hyp_" + secrets.token_urlsafe(_LENGTH)
    return key, hashlib.sha256(key.encode()).hexdigest()


def needed_scope(method: str, path: str, *, protect_metrics: bool) -> Scope | None:
    """Return the scope that a request needs; None when it is open to all."""
    if path == "/metrics":
        return "admin" if protect_metrics else None
    if path in _OPEN or path.startswith(_OPEN_BELOW) or method == "OPTIONS":
        return None
    if path == "/admin" or path.startswith("/admin/"):
        return "admin"
    return "read" if method in ("GET", "HEAD", "POST") else "write"


class Keyring:
    """The keys of a server; without any, everything is open."""

    def __init__(self, keys: Sequence[ApiKey] = ()):
        self._keys = tuple(keys)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of lines `name:scope:sha256`, where the scope is read, write or admin; # begins a comment.

        Raises:
            ConfigError: unreadable, without a key, or a line is not of this form. Keys themselves are not echoed.
        """
        try:
            lines = read_text(path).splitlines()
        except (OSError, DataError) as error:
            raise ConfigError(f"cannot read the API keys: {error}") from error
        keys = [_parse(line, f"{path}, line {i}") for i, line in enumerate(lines, 1) if line.split("#")[0].strip()]
        if not keys:
            raise ConfigError(f"{path} has no API key; make one with `python -m serve --new-key NAME:SCOPE`")
        return cls(keys)

    @property
    def is_open(self) -> bool:
        """Whether anybody may ask."""
        return not self._keys

    def check(self, presented: str | None, scope: Scope) -> None:
        """Let a request through.

        Raises:
            Unauthorized: no key, or an unknown one.
            Forbidden: the key is known, but not for this.
        """
        if self.is_open:
            return
        if not presented:
            raise Unauthorized("this server asks for an API key: send it as `Authorization: Bearer KEY`")
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for key in self._keys:  # all of them, whichever fits, so that the time taken says nothing
            if hmac.compare_digest(key.sha256, digest):
                found = key
        if found is None:
            raise Unauthorized("the API key is not known here")
        if SCOPES.index(found.scope) < SCOPES.index(scope):
            raise Forbidden(f"this needs an API key of scope {scope}; {found.name!r} has {found.scope}")


def _parse(line: str, where: str) -> ApiKey:
    match [part.strip() for part in line.split("#")[0].split(":")]:
        case [name, ("read" | "write" | "admin") as scope, sha256] if name and _is_sha256(sha256):
            return ApiKey(name, scope, sha256.lower())
        case _:
            raise ConfigError(f"{where}: expected name:scope:sha256, the scope one of read, write, admin")


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text.lower()) <= set("0123456789abcdef")
