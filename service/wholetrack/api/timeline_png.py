"""The timeline of a prediction as a PNG picture, drawn from the SVG picture."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path

from wholetrack.api.schemas import PredictionResponse
from wholetrack.api.timeline import timeline_svg
from wholetrack.errors import ErrorKind, ServiceError

_log = logging.getLogger(__name__)

# Images of containers have no fonts. If the system has others, they are used for letters that this one lacks.
_FONT = Path(__file__).parent / "fonts/DejaVuSans.ttf"
_FAMILY = "DejaVu Sans"
_TIMEOUT_S = 30
_RETRY_AFTER_S = 5
# resvg does not let other threads run while it draws, so that it would delay all requests if it ran in this process.
_PROGRAM = """
import sys
import resvg_py

font, family = sys.argv[1:]
svg = sys.stdin.buffer.read().decode()
png = resvg_py.svg_to_bytes(svg_string=svg, font_files=[font], sans_serif_family=family, serif_family=family)
sys.stdout.buffer.write(bytes(png))
"""
_ONE_AT_A_TIME = threading.Lock()


def timeline_png(content: PredictionResponse) -> bytes:
    """Return the timeline of a prediction that has the probabilities of its windows.

    Raises:
        ServiceError: If the picture cannot be drawn, or too many others are being drawn.
    """
    svg = timeline_svg(content).encode()
    command = [sys.executable, "-I", "-c", _PROGRAM, str(_FONT), _FAMILY]
    if not _ONE_AT_A_TIME.acquire(timeout=_TIMEOUT_S):
        raise ServiceError(
            ErrorKind.OVERLOADED, "Too many pictures are being drawn. Try again later.", retry_after_s=_RETRY_AFTER_S
        )
    try:
        return subprocess.run(command, input=svg, capture_output=True, check=True, timeout=_TIMEOUT_S).stdout
    except (OSError, subprocess.SubprocessError) as error:
        stderr = getattr(error, "stderr", None) or b""
        _log.error("cannot draw a picture: %s %s", error, stderr.decode(errors="replace").strip())
        raise ServiceError(ErrorKind.INTERNAL_ERROR, "The picture could not be drawn. Ask for format=svg.") from error
    finally:
        _ONE_AT_A_TIME.release()
