"""Turns normalised windows into class probabilities.

``bundle`` loads a published model, ``session`` opens it on a device, ``engine`` runs the windows of all tracks in
shared batches (``queue``, ``batching``, ``worker``, ``supervisor``).
"""
