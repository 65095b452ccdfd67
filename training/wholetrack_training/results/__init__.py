"""Records of finished runs, and what follows from them: tables, plots, calibration, robustness, comparisons."""
