"""What `mlip train` needs besides the data, for the hints that commands end with."""

from collections.abc import Collection


def training_words(labels: Collection[str]) -> str:
    """Return the settings of a training on data with some labels, with a space before; empty for the usual ones.

    Energies come with a potential, the default; matrices alone, or with energies of their calculations, with QHNet.
    """
    if "hamiltonian" not in labels:
        return ""
    if "initial_hamiltonian" in labels:
        return " experiment=qh9_sample"
    return " model=qhnet 'loss=[hamiltonian]' cutoff=15"
