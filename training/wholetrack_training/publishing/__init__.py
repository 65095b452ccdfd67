"""Bundles for the service: publishing them, refreshing their figures and cards, and quantising their networks."""
