"""Turns PCM into normalised windows, with one implementation for training and serving.

``grid`` computes the positions of frames and windows, ``mel`` computes the filter bank, ``logmel`` turns a stream of
samples into frames, ``windows`` divides a stream of frames into windows, and ``normalise`` normalises each window.
"""
