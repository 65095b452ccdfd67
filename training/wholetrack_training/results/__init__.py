"""Records of runs, and what is made of them: report, plots, baseline, robustness, calibration, filter sounds."""
