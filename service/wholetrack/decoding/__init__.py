"""Decode audio files of any accepted format to mono PCM, with one ffmpeg process per file.

- ``decoder`` runs ffmpeg in the sandbox and yields samples; ``self_test`` checks that it does so correctly.
- ``ffmpeg`` finds the executable and builds its command line; ``ffmpeg_log`` parses what it writes to stderr.
- ``outcome`` turns an exit status and a log into errors and warnings; ``container`` inspects the file itself.
- ``limits`` and ``cpu_affinity`` determine which resources a process gets.
- ``receiving`` and ``pipes`` read its output, and ``samples`` turns it into mono samples.

This module imports nothing, because the container image builds ffmpeg with the module ``ffmpeg`` alone.
"""
