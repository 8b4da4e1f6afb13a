"""Timings of the parts, as pytest-benchmark files, and the report that is made of them.

pytest bench                                                  a smoke test: every case once, on the smallest preset
mergevq bench --full --json timings.json                      the timings (docs/bench.md)
python -m mergevq.bench.report timings.json --markdown timings.md
python -m mergevq.bench.hotspots --preset G --what encode     where the time goes

The device is `mergevq.backends.select()`'s: MERGEVQ_DEVICE=cpu keeps off an accelerator.
"""
