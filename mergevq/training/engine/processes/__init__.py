"""The processes of a run: how many, on which device, in which precision, and what is said when one is lost."""
