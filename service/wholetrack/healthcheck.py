"""``python -m wholetrack.healthcheck``: whether the service on this machine is ready, for containers that have no curl.

Imports next to nothing: it runs every few seconds.
"""

from __future__ import annotations

import http.client
import os
import sys

_PATIENCE_S = 4.0


def main(port: int) -> int:
    """Say what ``/readyz`` answers on a port of this machine.

    Returns:
        The exit status: 0 if the service is ready, or answers and tells strangers nothing; 1 if it is neither.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"no answer: {error}\n")
        return 1
    finally:
        connection.close()
    sys.stdout.write(f"/readyz answers {status}\n")
    return 0 if status in {http.HTTPStatus.OK, http.HTTPStatus.UNAUTHORIZED} else 1


if __name__ == "__main__":
    sys.exit(main(int(os.environ.get("WHOLETRACK_PORT", "8000"))))
