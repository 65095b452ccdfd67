"""From the probabilities of all windows to statements about the track: ``ranking`` and ``sections``."""
