"""From a folder of music to a published model: tracks, splits, augmentation, network, fitting, evaluation, export."""
