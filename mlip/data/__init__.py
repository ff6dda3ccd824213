"""From files to graphs: adapters, neighbours, splits, statistics, loading."""
