"""Published music taggers that teach: their networks and front ends, built from arrays of their weights.

The weights are not part of this project. :mod:`.weights` reads them from ``.npz`` files.
"""
