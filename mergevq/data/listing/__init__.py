"""From names to pictures: keys, splits, classes, labels and what is passed over; no picture is opened here."""
