"""From normalised windows to probabilities.

``bundle`` reads a published model, ``device`` opens it on a device that has proven itself, ``engine`` runs the windows
of all tracks in shared batches.
"""
