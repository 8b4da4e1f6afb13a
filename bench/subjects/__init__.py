"""What is timed: models, their inputs, run times and exported graphs. Nothing is timed here."""
