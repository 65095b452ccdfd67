"""From a file of any audio format to mono PCM, through an ffmpeg process of its own for every file.

``ffmpeg`` finds the binary and knows its command line, ``report`` reads what it says, ``decoder`` runs it, and
``container`` knows what the accepted containers promise about themselves.
"""
