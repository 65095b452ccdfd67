"""A REST service that predicts the music genre of a whole recording, when it changes, and how sure it is."""

import os

__version__ = "0.2.0"

# onnxruntime 1.29 and later report sessions and models to its vendor unless this is set before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
