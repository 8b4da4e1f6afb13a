"""How a case is timed: in pairs, by run time; memory, quality, and the machine that it ran on."""
