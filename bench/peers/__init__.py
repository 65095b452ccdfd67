"""Serving frameworks with the same work: the project's own decoding, features and network, their own batching.

Each is set up as its documentation recommends for two or more processors without a GPU and a model behind
preprocessing. Whoever thinks that one is treated unfairly finds everything that decides it in one short file.
"""

NAMES = {"litserve": "LitServe", "bentoml": "BentoML", "ray": "Ray Serve"}
