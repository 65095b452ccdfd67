"""Writes predicted genres into the tags of audio files.

Only :mod:`wholetrack.tagging.audio_tags` uses mutagen, which is GPL-2.0-or-later and belongs to the extra ``tag``.
"""
