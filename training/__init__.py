"""From a folder of music to a published model: tracks, splits, augmentation, network, fitting, evaluation, export."""

import service  # noqa: F401 - before onnxruntime, which it keeps from reporting
