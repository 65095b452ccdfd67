"""Turns the scores of all windows into the result for the whole track.

``window_scores`` collects the scores, ``ranking`` and ``sections`` summarise them, and ``confidence`` rates the result.
"""
