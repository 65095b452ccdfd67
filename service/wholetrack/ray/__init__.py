"""The service on Ray: the same application, with decoding and networks in replicas on several machines.

    ingress (HTTP) --recording--> analysis (decoding, features) --windows--> network (CPU or GPU)

Nothing else in the package imports ray. :mod:`.serve` is the application.
"""
