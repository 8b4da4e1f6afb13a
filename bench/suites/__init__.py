"""The timings: one file of pytest-benchmark a group, run by `mergevq bench` or `pytest bench`."""
