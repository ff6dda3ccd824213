"""File formats: bytes of strangers to plain values. Knows no data set."""
