"""``mlip data``: look at data, check, prepare, split, convert and fetch them."""
