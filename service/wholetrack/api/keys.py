"""API keys: authentication, and a rate limit, a concurrency limit and a weight for each key.

A key is 32 random bytes, so it cannot be guessed from its SHA-256, and an unsalted hash is safe to store. Only hashes
are kept. A presented key is compared with all of them in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError

from wholetrack.api.admission import Admission
from wholetrack.api.request_rate import RequestRate
from wholetrack.errors import ErrorKind, ServiceError, StartupError
from wholetrack.settings import Settings

_MIN_KEY_LENGTH = 20
_IDENTIFIER = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
# A key with a larger weight could fill whole batches, and would keep a CPU for seconds at a time.
_MAX_WEIGHT = 8
_SCOPE_ENTRY = "wholetrack.key"
_BEARER = HTTPBearer(auto_error=False, description="An API key.")


class KeySpec(BaseModel):
    """The entry of one key in the key file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    requests_per_minute: PositiveInt | None = None
    concurrent: PositiveInt | None = None
    weight: Annotated[int, Field(ge=1, le=_MAX_WEIGHT)] = 1


_FILE_FORMAT = TypeAdapter(dict[Annotated[str, Field(pattern=_IDENTIFIER)], KeySpec])


class Key:
    """One API key and its limits. Not thread-safe: for use on the event loop only.

    Attributes:
        identifier: Name of the key in the logs.
        digest: SHA-256 of the key.
        weight: The share of the machine that its tracks get, relative to tracks of weight 1.
    """

    def __init__(self, identifier: str, spec: KeySpec, settings: Settings) -> None:
        self.identifier = identifier
        self.digest = bytes.fromhex(spec.sha256)
        self.weight = spec.weight
        per_minute = spec.requests_per_minute or settings.key_requests_per_minute
        self._rate = RequestRate(per_minute) if per_minute else None
        self._max_concurrent = spec.concurrent or settings.key_concurrent
        self._in_progress = 0

    def count_request(self) -> None:
        """Count one request against the rate limit of the key.

        Raises:
            ServiceError: ``overloaded`` if the key has exceeded its requests per minute.
        """
        if self._rate and not self._rate.count():
            retry_after_s = self._rate.retry_after_s
            raise ServiceError(
                ErrorKind.OVERLOADED,
                f"This key is limited to {self._rate.per_minute} requests per minute. Try again in {retry_after_s} s.",
                retry_after_s=retry_after_s,
            )

    def uncount_request(self) -> None:
        """Undo :meth:`count_request` for a request that was refused for another reason."""
        if self._rate:
            self._rate.uncount()

    @contextmanager
    def permit(self) -> Iterator[None]:
        """Count one request against the concurrency limit of the key for the duration of the block.

        Raises:
            ServiceError: ``overloaded`` if the limit is reached.
        """
        if self._max_concurrent is not None and self._in_progress >= self._max_concurrent:
            raise ServiceError(
                ErrorKind.OVERLOADED,
                f"This key has reached its limit of requests in progress ({self._max_concurrent}). Wait for one to "
                "finish.",
                retry_after_s=1,
            )
        self._in_progress += 1
        try:
            yield
        finally:
            self._in_progress -= 1


class Keys:
    """All configured API keys."""

    def __init__(self, keys: Mapping[str, KeySpec], settings: Settings) -> None:
        self._keys = [Key(identifier, spec, settings) for identifier, spec in keys.items()]

    @classmethod
    def load(cls, settings: Settings) -> Keys | None:
        """Load the keys from the settings and from the key file; return None if neither is configured.

        Raises:
            StartupError: If a key is malformed, the file cannot be read, or no key is found.
        """
        if settings.api_keys is None and settings.api_keys_file is None:
            return None
        specs = _from_setting(settings.api_keys.get_secret_value()) if settings.api_keys else {}
        if settings.api_keys_file:
            specs |= _from_file(settings.api_keys_file)
        if not specs:
            raise StartupError(
                "API keys are configured with WHOLETRACK_API_KEYS or WHOLETRACK_API_KEYS_FILE but none was found: "
                "create one with `wholetrack key NAME`, or remove both variables to serve without keys"
            )
        return cls(specs, settings)

    def find(self, presented: str) -> Key | None:
        """Return the key that was presented, or None for a wrong one. Takes the same time either way."""
        digest = hashlib.sha256(presented.encode()).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found


class RequireKey:
    """A dependency for routes that need an API key."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def __call__(self, request: Request, credentials: _Credentials) -> None:
        """Authenticate a request and store its key in the ASGI scope, where :func:`key_of` finds it.

        Raises:
            ServiceError: ``unauthorised``, or ``overloaded`` if the key has exceeded its rate.
        """
        authenticate(
            self._keys,
            credentials.credentials if credentials else None,
            request.scope,
            where="in the Authorization header, as a bearer token",
        )


def authenticate(keys: Keys, presented: str | None, scope: MutableMapping[str, Any], *, where: str) -> Key:
    """Return the key that a client presents, and store it in the ASGI scope, where :func:`key_of` finds it.

    Args:
        keys: All keys.
        presented: What the client sent; None if it sent nothing.
        scope: The scope of its request.
        where: Where clients should send a key, for the error.

    Raises:
        ServiceError: ``unauthorised``, or ``overloaded`` if the key has exceeded its rate.
    """
    key = keys.find(presented) if presented is not None else None
    if key is None:
        raise ServiceError(ErrorKind.UNAUTHORISED, f"Send a valid API key {where}.")
    scope[_SCOPE_ENTRY] = key
    key.count_request()
    return key


def key_of(scope: Mapping[str, object]) -> Key | None:
    """Return the key that authenticated a request, or None if it needed none."""
    key = scope.get(_SCOPE_ENTRY)
    return key if isinstance(key, Key) else None


@asynccontextmanager
async def permits(key: Key | None, *admissions: Admission) -> AsyncIterator[None]:
    """Hold a permit of the key, if there is one, and one of each admission for the duration of the block.

    Raises:
        ServiceError: ``overloaded`` or ``draining``.
    """
    async with AsyncExitStack() as held:
        try:
            if key:
                held.enter_context(key.permit())
            for admission in admissions:
                await held.enter_async_context(admission.admit())
        except ServiceError:
            # A request that is refused because others are in progress is retried, and would count twice.
            if key:
                key.uncount_request()
            raise
        yield


def new_key() -> tuple[str, str]:
    """Generate a key; return it and its SHA-256 in hexadecimal."""
    key = secrets.token_urlsafe(32)
    return key, hashlib.sha256(key.encode()).hexdigest()


def _from_setting(text: str) -> dict[str, KeySpec]:
    """Parse ``name:key`` entries separated by spaces or commas."""
    specs = {}
    for entry in text.replace(",", " ").split():
        identifier, _, key = entry.partition(":")
        # Only ASCII, because clients encode other characters differently.
        if len(key) < _MIN_KEY_LENGTH or not key.isascii() or not re.fullmatch(_IDENTIFIER, identifier):
            # Even a malformed entry may contain a secret, so the message does not quote it.
            raise StartupError(
                f"WHOLETRACK_API_KEYS contains an entry that is not name:key with a key of at least {_MIN_KEY_LENGTH} "
                "ASCII characters; create one with `wholetrack key NAME`"
            )
        specs[identifier] = KeySpec(sha256=hashlib.sha256(key.encode()).hexdigest())
    return specs


def _from_file(path: Path) -> dict[str, KeySpec]:
    try:
        return _FILE_FORMAT.validate_python(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StartupError(f"cannot read the API key file: {error}") from error
    except ValidationError as error:
        complaints = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise StartupError(f"the API key file {path} is invalid: {complaints}") from error


_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
