"""The recordings in a store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from wholetrack.catalogue.listed_file import ListedFile
from wholetrack.catalogue.store import Info, Store
from wholetrack.decoding.container import AUDIO_SUFFIXES

# What stores call the time of the last change.
_MODIFIED = ("LastModified", "last_modified", "updated", "mtime")


def list_recordings(store: Store) -> Iterator[ListedFile]:
    """Yield the files in a store whose suffix is that of a recording, always in the same order.

    Raises:
        CatalogueError: If the folder does not exist or may not be listed.
        StoreError: If the store fails.
    """
    for info in store.infos():
        path = store.name_of(info)
        # Locally, a name may also be that of a pipe, which would never end.
        if PurePosixPath(path).suffix.lower() in AUDIO_SUFFIXES and (not store.is_local or Path(path).is_file()):
            yield _listed(path, info)


def _listed(path: str, info: Info) -> ListedFile:
    etag = info.get("ETag") or info.get("etag")
    modified = next((info[key] for key in _MODIFIED if info.get(key) is not None), None)
    return ListedFile(path, info.get("size"), str(etag).strip('"') if etag else None, _time(modified))


def _time(value: object) -> datetime | None:
    """Return a time that a store gives as text, in seconds since 1970, or as a datetime."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    return None
