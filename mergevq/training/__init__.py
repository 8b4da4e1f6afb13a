"""Training: what every stage shares, and a stage a folder."""

from __future__ import annotations

from mergevq.plotting import drop_absent_backend

drop_absent_backend()  # Lightning imports matplotlib
