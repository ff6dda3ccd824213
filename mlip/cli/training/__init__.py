"""What ``mlip train`` does before and around the training."""
