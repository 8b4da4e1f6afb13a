"""What every stage shares: stepping, launching, checkpoints, run folder, schedules, log. Nothing of one stage alone."""
