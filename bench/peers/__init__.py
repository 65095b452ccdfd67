"""Serving frameworks with the same decoding, features and network as the service.

Each is measured in both configurations that its documentation recommends without a GPU. In ``batching`` tracks share
batches and the network uses all cores; in ``workers`` every worker process does everything with one core. Everything
that determines the result of a framework is in one short file, so that it can be checked.
"""

NAMES = {"litserve": "LitServe", "bentoml": "BentoML", "ray": "Ray Serve"}
SETUPS = ("batching", "workers")
