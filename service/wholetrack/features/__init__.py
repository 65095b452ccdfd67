"""From PCM to normalised windows: one implementation for training and serving.

``grid`` says where frames and windows lie, ``mel`` holds the filter bank, ``logmel`` turns a stream of samples into
frames, ``windows`` cuts a stream of frames into windows, ``normalise`` makes a window's level not matter.
"""
