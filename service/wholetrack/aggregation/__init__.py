"""From the scores of all windows to the result for the whole track.

``window_scores`` collects the scores, ``ranking`` and ``sections`` summarise them, ``confidence`` rates the result.
"""
