"""Check whether the service on this machine is ready, with ``python -m wholetrack.healthcheck``.

For containers without curl. It runs every few seconds, so it imports only a few modules of the standard library.
"""

from __future__ import annotations

import http.client
import os
import sys

_TIMEOUT_S = 4.0


def main(port: int) -> int:
    """Request ``/readyz`` on a port of this machine and print the status of the response.

    Args:
        port: The port for probes if there is one, else the port of the service.

    Returns:
        The exit status: 0 if the service is ready, or if it responds but requires an API key for ``/readyz``; else 1.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"no response: {error}")
        return 1
    finally:
        connection.close()
    print(f"/readyz returned {status}")
    return 0 if status in {http.HTTPStatus.OK, http.HTTPStatus.UNAUTHORIZED} else 1


def _port() -> int:
    """Return the port for probes if there is one, else the port of the service."""
    for variable in ("WHOLETRACK_PROBE_PORT", "WHOLETRACK_PORT"):
        # The variable may be blank, or an address that Kubernetes sets.
        value = os.environ.get(variable, "").strip()
        if value.isdecimal():
            return int(value)
    return 8000


if __name__ == "__main__":
    sys.exit(main(_port()))
