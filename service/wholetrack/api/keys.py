"""API keys: who may ask, how often, and how much at a time.

A key is 32 random bytes, so its bare SHA-256 is as good as secret: nobody guesses what was hashed. Only hashes are
kept, and a key that comes is compared with all of them in a time that tells nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError

from wholetrack.errors import ErrorKind, ServiceError, StartupError
from wholetrack.settings import Settings

if TYPE_CHECKING:
    from limits.strategies import RateLimiter

_SHORTEST = 20
_IDENTIFIER = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
# A heavier one would have a batch, and a decoder's turn of some seconds, for itself.
_HEAVIEST = 8
_WHOSE = "wholetrack.key"


class KeySpec(BaseModel):
    """What the file of keys says of one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    requests_per_minute: PositiveInt | None = None
    concurrent: PositiveInt | None = None
    weight: Annotated[int, Field(ge=1, le=_HEAVIEST)] = 1


_FILE = TypeAdapter(dict[Annotated[str, Field(pattern=_IDENTIFIER)], KeySpec])


class Key:
    """Somebody who may ask; used by the event loop alone.

    Attributes:
        identifier: as logs call it.
        digest: SHA-256 of the key.
        weight: how much of the machine its tracks get, beside those of weight 1.
    """

    def __init__(self, identifier: str, spec: KeySpec, settings: Settings) -> None:
        self.identifier = identifier
        self.digest = bytes.fromhex(spec.sha256)
        self.weight = spec.weight
        self._per_minute = spec.requests_per_minute or settings.key_requests_per_minute
        self._most = spec.concurrent or settings.key_concurrent
        self._under_way = 0
        self._limiter = _limiter() if self._per_minute else None

    def count(self) -> None:
        """Count one more request.

        Raises:
            ServiceError: ``overloaded`` if these were too many within a minute.
        """
        if not self._limiter or not self._per_minute:
            return
        from limits import RateLimitItemPerMinute

        rate = RateLimitItemPerMinute(self._per_minute)
        if not self._limiter.hit(rate):
            seconds = self._limiter.get_window_stats(rate).reset_time - time.time()
            raise ServiceError(
                ErrorKind.OVERLOADED,
                f"The key may ask {self._per_minute} times a minute; try again when Retry-After says.",
                retry_after_s=max(1, math.ceil(seconds)),
            )

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one prediction among those of this key.

        Raises:
            ServiceError: ``overloaded`` if all are taken.
        """
        if self._most is not None and self._under_way >= self._most:
            raise ServiceError(
                ErrorKind.OVERLOADED,
                f"The key has {self._under_way} predictions under way, as many as it may; wait for one.",
                retry_after_s=1,
            )
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1


class Keys:
    """All who may ask."""

    def __init__(self, keys: Mapping[str, KeySpec], settings: Settings) -> None:
        self._keys = [Key(identifier, spec, settings) for identifier, spec in keys.items()]

    @classmethod
    def load(cls, settings: Settings) -> Keys | None:
        """The keys of the settings and of their file; None if there are neither.

        Raises:
            StartupError: if the file cannot be read, or a key is no key.
        """
        if settings.api_keys is None and settings.api_keys_file is None:
            return None
        found = _from_environment(settings.api_keys.get_secret_value()) if settings.api_keys else {}
        if settings.api_keys_file:
            found |= _from_file(settings.api_keys_file)
        if not found:
            raise StartupError("API keys are configured but there is none: make one with `wholetrack key NAME`")
        return cls(found, settings)

    def of(self, presented: str) -> Key | None:
        """Whose key that is; takes as long for a wrong one."""
        digest = hashlib.sha256(presented.encode()).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found


class Gate:
    """A dependency of routes that are for holders of keys."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def __call__(self, request: Request, credentials: _Credentials) -> None:
        """Let a request pass, and remember whose it is.

        Raises:
            ServiceError: ``unauthorised``, or ``overloaded`` if the key asked too often.
        """
        key = self._keys.of(credentials.credentials) if credentials else None
        if key is None:
            raise ServiceError(
                ErrorKind.UNAUTHORISED, "Send a valid key in the header Authorization, as a bearer token."
            )
        request.scope[_WHOSE] = key
        key.count()


def key_of(scope: Mapping[str, object]) -> Key | None:
    """Whose request that is, where keys are needed."""
    key = scope.get(_WHOSE)
    return key if isinstance(key, Key) else None


def new_key() -> tuple[str, str]:
    """A fresh key and its SHA-256."""
    key = secrets.token_urlsafe(32)
    return key, hashlib.sha256(key.encode()).hexdigest()


def _from_environment(text: str) -> dict[str, KeySpec]:
    """``name:key`` of each, with spaces or commas between them."""
    found = {}
    for entry in text.replace(",", " ").split():
        identifier, _, key = entry.partition(":")
        # Whatever is wrong with it, it may be a secret: nothing of it is said.
        # Of other characters, clients make different bytes.
        if len(key) < _SHORTEST or not key.isascii() or not re.fullmatch(_IDENTIFIER, identifier):
            raise StartupError(
                f"WHOLETRACK_API_KEYS holds an entry that is not name:key with a key of at least {_SHORTEST} "
                "ASCII characters; make one with `wholetrack key NAME`"
            )
        found[identifier] = KeySpec(sha256=hashlib.sha256(key.encode()).hexdigest())
    return found


def _from_file(path: Path) -> dict[str, KeySpec]:
    try:
        return _FILE.validate_python(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StartupError(f"the file of API keys cannot be read: {error}") from error
    except ValidationError as error:
        complaints = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise StartupError(f"the file of API keys {path} does not keep its format: {complaints}") from error


def _limiter() -> RateLimiter:
    # Takes a tenth of a second to import, which only those pay who limit rates.
    from limits.storage import MemoryStorage
    from limits.strategies import SlidingWindowCounterRateLimiter

    return SlidingWindowCounterRateLimiter(MemoryStorage())


_BEARER = HTTPBearer(auto_error=False, description="An API key.")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
