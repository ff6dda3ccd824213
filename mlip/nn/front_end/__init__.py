"""What a network over orbitals knows of every atom before its spherical layers."""
