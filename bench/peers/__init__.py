"""Serving frameworks with the same work: the project's own decoding, features and network.

Each is measured in both ways that its documentation recommends without a GPU: ``batching``, where tracks share batches
and the network has all cores, and ``workers``, where every worker does all of it with one core. Whoever thinks that one
is treated unfairly finds everything that decides it in one short file.
"""

NAMES = {"litserve": "LitServe", "bentoml": "BentoML", "ray": "Ray Serve"}
SETUPS = ("batching", "workers")
