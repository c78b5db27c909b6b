"""Fits a policy to labelled ads: calibration, thresholds and the router, never the model."""
