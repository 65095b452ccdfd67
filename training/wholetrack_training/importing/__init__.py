"""Bundles of networks that others trained: musicnn, and classifiers in ONNX, TorchScript or Keras."""
