"""Compute the windows of a track in another process, from what ffmpeg writes.

- Service: ``workers`` starts the feature workers and distributes tracks over them, ``client`` is one track.
- Worker: ``worker`` reads the output of ffmpeg and replies with blocks, ``windows`` and ``waveform`` compute them.
- Both: ``messages`` and ``sealed_memory`` describe what they exchange.
"""
