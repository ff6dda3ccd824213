"""Workers of ``scripts/bench_peers.py``, one file a package, and what runs and compares them."""
