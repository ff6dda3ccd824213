"""Labels computed by any calculator of ASE, and by models."""
