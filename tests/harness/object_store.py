"""A real object store server, moto's, that can be told to refuse requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import MotoRequestHandler  # type: ignore[attr-defined]
from s3fs import S3FileSystem
from werkzeug.serving import make_server

_ERROR = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
SLOW_DOWN = ("503 Slow Down", "SlowDown", "Please reduce your request rate.")
DENIED = ("403 Forbidden", "AccessDenied", "Access Denied")
Refusal = tuple[str, str, str]
"""Status, code and message of an error of S3."""


@dataclass
class ObjectStore:
    """A running server.

    Attributes:
        url: Its address.
        refusal: Returns how to refuse a request, from its method and its path; None to serve it.
    """

    url: str = ""
    refusal: Callable[[str, str], Refusal | None] = lambda _method, _path: None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that botocore reads to use this server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }

    def client(self) -> S3FileSystem:
        """Return a client of its own, which caches nothing."""
        return S3FileSystem(
            key="key",
            secret="secret",
            endpoint_url=self.url,
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def answer(self, serve: Any, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Refuse a request, or serve it."""
        refused = self.refusal(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        if refused is None:
            return serve(environ, start_response)  # type: ignore[no-any-return]
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, code, message = refused
        start_response(status, [("Content-Type", "application/xml")])
        return [_ERROR.format(code=code, message=message).encode()]


@contextmanager
def running_object_store() -> Iterator[ObjectStore]:
    """Run a server during the block."""
    store = ObjectStore()
    serve = DomainDispatcherApplication(create_backend_app)
    server = make_server(
        "127.0.0.1",
        0,
        lambda environ, start_response: store.answer(serve, environ, start_response),
        threaded=True,
        request_handler=_QuietHandler,
    )
    host, port = server.server_address[:2]
    store.url = f"http://{host!s}:{port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _QuietHandler(MotoRequestHandler):
    """Logs nothing."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        del code, size
