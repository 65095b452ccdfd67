"""From PCM to normalised windows, with one implementation for training and serving.

``grid`` computes the positions of frames and windows, ``mel`` the filter bank, ``logmel`` turns a stream of samples
into frames, ``windows`` divides a stream of frames into windows, ``normalise`` normalises each window.
"""
