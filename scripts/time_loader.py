"""How fast batches come out of a store, graphs included: python scripts/time_loader.py STORE [--workers 1].

Structures come in random order, as in training. Prints atoms a second over a number of batches, after the first one,
and the memory that was needed at most.
"""

from __future__ import annotations

import argparse
import resource
import time

from mlip.data.datasets.store import StoreDataset
from mlip.data.loading import GraphDataset, ResumableLoader
from mlip.data.subset import as_subset


def main() -> None:
    """Time one pass, or the first batches of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", help="folder that mlip data prepare made")
    parser.add_argument("--workers", type=int, default=0, help="processes that read and build graphs (0: this one)")
    parser.add_argument("--cutoff", type=float, default=5.0, help="of the graphs, in Angstrom")
    parser.add_argument("--batch-edges", type=int, default=20_000, help="edges of a batch")
    parser.add_argument("--batches", type=int, default=300, help="batches to time")
    options = parser.parse_args()
    graphs = GraphDataset(as_subset(StoreDataset(options.store)), options.cutoff)
    batches = iter(ResumableLoader(graphs, options.batch_edges, num_workers=options.workers))
    next(batches)
    started = time.perf_counter()
    atoms = sum(batch.num_nodes for _, batch in zip(range(options.batches), batches))
    seconds = time.perf_counter() - started
    here, workers = (
        resource.getrusage(who).ru_maxrss / 1e3 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(f"{atoms / seconds:,.0f} atoms/s, at most {here:.0f} MB here and {workers:.0f} MB in a worker")


if __name__ == "__main__":
    main()
