"""The classifier of a data set that generated pictures are judged by."""
