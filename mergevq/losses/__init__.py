"""The terms of the stage-1 loss, one idea a file; each returns a float32 scalar."""
