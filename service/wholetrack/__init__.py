"""A REST service that predicts the music genre of a whole recording, and where in the recording the genre changes."""

import os

__version__ = "0.2.0"

# Since version 1.29 onnxruntime reports sessions and models to its vendor unless this is set before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
