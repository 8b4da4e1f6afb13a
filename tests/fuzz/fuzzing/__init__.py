"""Damages every kind of file that a user may name, and looks at what the package makes of it.

A case is a pure function of a seed, a kind and a number. `kinds` write a small valid file of each kind and read it
back, `mutators` damage it, `workers` reads it in a process of its own, and `verdicts` says what is wrong with the
outcome: anything but success or one clear sentence within a second's work and little memory.
"""
