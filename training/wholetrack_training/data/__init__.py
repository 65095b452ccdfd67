"""Data sets: from recordings or precomputed spectrograms to labelled tracks, splits and cached features."""
