"""The store: any data set as HDF5 shards of compressed, checksummed blocks, with random access."""
