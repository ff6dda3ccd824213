"""Self-connections: what an atom keeps of its own features beside its neighbours' messages, one form a file."""
