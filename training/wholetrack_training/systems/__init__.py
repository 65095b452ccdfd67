"""The four published systems and our own: each a recipe with its network, features, augmentation and optimiser."""
