"""Predicts all recordings of a store: from their list to Parquet files with a row for each.

``listing`` finds the recordings, ``manifest`` divides them into partitions once and for all, ``predictor`` predicts one
of them with the pipeline, and ``tables`` makes rows of the results. A partition is committed to ``target`` at once, so
that a run can be ended at any moment and continued. ``local`` runs partitions in this process, ``on_ray`` in a Ray
cluster; both use the same code for a partition.

Needs the extra ``catalogue``. Only the command ``wholetrack catalogue`` imports this package.
"""
