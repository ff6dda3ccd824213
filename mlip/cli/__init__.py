"""The mlip command: the only user of Hydra."""
