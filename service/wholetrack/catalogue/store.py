"""A folder in any file system or object store that fsspec supports.

The libraries behind fsspec repeat requests that failed for a reason that may pass, each in its own way: s3fs and
botocore with exponential back-off and jitter. Nothing is repeated here.
"""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from wholetrack.catalogue.errors import CatalogueError, StoreError
from wholetrack.catalogue.listed_file import valid_text

Info = Mapping[str, Any]
"""What a store says about a file, with ``name``, ``size``, ``type`` and keys that differ from store to store."""

# A file that is still being written has a name in this folder, which readers of Parquet ignore.
_UNFINISHED = "_unfinished"
# Stores in which a file appears only when all of it has been sent, and which have no folders.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "memory"})
_S3 = frozenset({"s3", "s3a"})
_OWN_RETRIES = ("AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS")


class UnreadableFileError(Exception):
    """The store works, but not for this file. The message says why, in a sentence."""


class Store:
    """A folder in a store. Threads may share it.

    Args:
        url: A path, or a URL with a protocol that fsspec knows, such as ``s3://bucket/prefix``.
        options: Arguments of the fsspec file system. Local ones get none.

    Attributes:
        url: The complete URL of the folder.
        is_local: Whether the files are in a local file system.

    Raises:
        CatalogueError: If there is no such file system, or it does not accept the options.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._fs, self._root = _open(url, options)
        self.url = valid_text(str(self._fs.unstrip_protocol(self._root)))
        self.is_local = isinstance(self._fs, LocalFileSystem)
        protocol = self._fs.protocol
        self._has_objects = not _OBJECT_STORES.isdisjoint([protocol] if isinstance(protocol, str) else protocol)

    def infos(self) -> Iterator[Info]:
        """Yield what the store says about each file in the folder and its subfolders.

        Only the files of one subfolder of the first level are in memory at the same time.

        Raises:
            CatalogueError: If the folder does not exist or may not be listed.
            StoreError: If the store fails.
        """
        try:
            with self.failing(f"cannot list {self.url}", passing=(FileNotFoundError, PermissionError)):
                yield from self._infos()
        except FileNotFoundError as error:
            raise CatalogueError(f"{self.url} does not exist") from error
        except PermissionError as error:
            raise CatalogueError(f"{self.url} cannot be listed: {_reason(error)}") from error

    def name_of(self, info: Info) -> str:
        """Return the path of a local file, or the complete URL of any other."""
        name = _name(info)
        return name if self.is_local else str(self._fs.unstrip_protocol(name))

    def check(self) -> None:
        """Check that the store still shows the folder.

        Raises:
            StoreError: If it does not, for example because credentials have expired.
        """
        with self.failing(f"cannot list {self.url}"):
            self._fs.info(self._root)

    @contextmanager
    def local_copy(self, path: str, folder: Path) -> Iterator[Path]:
        """Copy a file to a local folder for the duration of the block. A local file is not copied.

        Args:
            path: Its path or URL, as :meth:`name_of` returns it.
            folder: A private folder.

        Raises:
            UnreadableFileError: If the file is missing, or may not be read.
            StoreError: If the store fails.
        """
        if self.is_local:
            yield Path(path)
            return
        descriptor, name = tempfile.mkstemp(dir=folder, prefix="")
        os.close(descriptor)
        try:
            try:
                with self.failing(f"cannot read {valid_text(path)}", passing=(FileNotFoundError, PermissionError)):
                    self._fs.get_file(path, name)
            except (FileNotFoundError, PermissionError) as error:
                raise UnreadableFileError(f"The file cannot be read: {_reason(error)}.") from error
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def open(self, name: str) -> IO[bytes] | None:
        """Open a file of this folder for reading; None if there is none. Use it within :meth:`failing`.

        Raises:
            StoreError: If the store fails.
        """
        with self.failing(f"cannot read {self.url}/{name}"), suppress(FileNotFoundError):
            return cast("IO[bytes]", self._fs.open(self._path(name), "rb"))
        return None

    def names(self, folder: str) -> set[str]:
        """Return the names of the files in a folder of this one.

        Raises:
            StoreError: If the store fails.
        """
        found: list[Info] = []
        with self.failing(f"cannot list {self.url}/{folder}"), suppress(FileNotFoundError):
            found = self._fs.ls(self._path(folder), detail=True)
        return {_name(info).rpartition("/")[2] for info in found if info["type"] == "file"}

    def write(self, name: str, content: bytes) -> None:
        """Write a file of this folder. It appears only when it is complete, in place of an older one.

        Raises:
            StoreError: If the store fails.
        """
        with self._appearing(name) as path:
            self._fs.pipe_file(path, content)

    def put(self, name: str, source: Path) -> None:
        """Copy a local file to this folder. It appears only when it is complete, in place of an older one.

        Raises:
            StoreError: If the store fails.
        """
        with self._appearing(name) as path:
            self._fs.put_file(str(source), path)

    def remove(self, *names: str) -> None:
        """Remove files or folders of this folder, in this order.

        Raises:
            StoreError: If the store fails.
        """
        for name in names:
            with self.failing(f"cannot remove {self.url}/{name}"), suppress(FileNotFoundError):
                self._fs.rm(self._path(name), recursive=True)

    def remove_unfinished(self) -> None:
        """Remove what processes that were killed have left unfinished; an object store shows no such files.

        Raises:
            StoreError: If the store fails.
        """
        if not self._has_objects:
            self.remove(_UNFINISHED)

    @contextmanager
    def failing(self, what: str, *, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Raise errors of the store as :class:`StoreError`, except those in ``passing``."""
        try:
            yield
        except passing:
            raise
        except Exception as error:  # each library raises errors of its own, without a common base
            raise StoreError(f"{what}: {_reason(error)}") from error

    def _infos(self) -> Iterator[Info]:
        found: list[Info] = sorted(self._fs.ls(self._root, detail=True), key=_name)
        folders = [_name(info) for info in found if info["type"] == "directory"]
        if any(folder.rstrip("/") == self._root.rstrip("/") for folder in folders):
            # A key with two slashes makes an object store name a folder as a subfolder of itself.
            found, folders = [], [self._root]
        yield from (info for info in found if info["type"] != "directory")
        # Local file systems would leave out folders that cannot be read.
        how = {"on_error": "raise"} if self.is_local else {}
        for folder in folders:
            yield from sorted(self._fs.find(folder, detail=True, **how).values(), key=_name)

    @contextmanager
    def _appearing(self, name: str) -> Iterator[str]:
        """Yield the path to which the block writes a file, which appears under its name when the block ends."""
        path = self._path(name)
        with self.failing(f"cannot write {self.url}/{name}"):
            if self._has_objects:
                yield path
                return
            unfinished = self._path(f"{_UNFINISHED}/{uuid.uuid4().hex}")
            for each in (unfinished, path):
                self._fs.makedirs(each.rpartition("/")[0], exist_ok=True)
            yield unfinished
            if self.is_local:
                # Otherwise, the name could survive a power failure, and the content not.
                with Path(unfinished).open("rb") as file:
                    os.fsync(file.fileno())
            self._fs.mv(unfinished, path)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


def _open(url: str, options: Mapping[str, Any]) -> tuple[AbstractFileSystem, str]:
    protocol = url.partition("://")[0] if "://" in url else "file"
    try:
        if protocol in {"file", "local"}:
            # Not url_to_fs, to which two colons in a path would mean something else.
            local = LocalFileSystem()
            return local, str(local._strip_protocol(url))  # noqa: SLF001 - the only way to remove a protocol
        # A client that was opened before may have been told something else by variables.
        defaults: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        if protocol in _S3 and not any(os.environ.get(name) for name in _OWN_RETRIES):
            # Besides repeating requests, botocore sends fewer of them while S3 says that there are too many.
            defaults["config_kwargs"] = {"retries": {"mode": "adaptive", "max_attempts": 6}}
        return cast("tuple[AbstractFileSystem, str]", url_to_fs(url, **defaults | dict(options)))
    except (ImportError, ValueError, TypeError) as error:
        raise CatalogueError(f"{url} cannot be opened: {error}") from error


def _name(info: Info) -> str:
    return str(info["name"])


def _reason(error: Exception) -> str:
    """Return what an error says, without its class and number."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    text = str(error).strip().rstrip(".") or type(error).__name__
    return "it does not exist" if isinstance(error, FileNotFoundError) and text == error.filename else text


def is_shortage(error: OSError) -> bool:
    """Return whether an error says that this machine lacks something, and nothing about the file."""
    return error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EAGAIN, errno.EDQUOT}
