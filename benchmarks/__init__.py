"""Measurements that can be believed: peers in the same run, controls, one JSON line last."""
