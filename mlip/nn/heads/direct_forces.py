"""Forces as vectors that the network reads off, without differentiating the energy."""

from collections.abc import Sequence

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.heads.base import Head, num_scalars
from mlip.ops.layout import split_blocks
from mlip.ops.segment import segment_sum

_VECTOR, _EVEN_VECTOR = Irrep("1o"), Irrep("1e")


class DirectForces(Head):
    """``F_i = s Σ_c (w_c + Σ_k g_kc x_ik) v_ic``: vectors v of the last layer that has some, scalars x of the last.

    Cheaper than the gradient of the energy, and not one: the energy is not conserved in MD, and forces and energies
    contradict each other where the fit is not perfect.

    Args:
        irreps_layers: features after each layer; one must have vectors 1o, or 1e where all labels are even.
        elements: symbols in the order of the species index.
        scale: s in eV/Å, e.g. the RMS of the forces of the training data.
        remove_net_force: subtract the mean of a structure's forces, so that its momentum is conserved. It is no
            longer a sum of local contributions: far molecules in one cell feel each other through the mean.

    Vectors 1e are read where no layer has 1o: right only in a model whose labels are all even (``symmetry`` SO3).
    """

    provides = ("forces",)

    def __init__(
        self,
        irreps_layers: Sequence[Irreps],
        elements: tuple[str, ...],
        scale: float = 1.0,
        remove_net_force: bool = False,
    ) -> None:
        super().__init__(irreps_layers, elements)
        if scale is None or not 0 < scale < float("inf"):
            hint = " The data have no forces to take it from: set statistics.force_rms." if scale is None else ""
            raise ConfigError(f"DirectForces needs scale > 0 eV/Å, got {scale}.{hint}")
        self.layer, self.block = _find_vectors(self.irreps_layers)
        vectors = self.irreps_layers[self.layer][self.block]
        self.symmetry = "O3" if vectors.ir == _VECTOR else "SO3"
        self.num_scalars = num_scalars(self.irreps_layers[-1], "DirectForces")
        self.weight = nn.Parameter(torch.randn(vectors.mul))
        self.gates = nn.Parameter(torch.randn(self.num_scalars, vectors.mul))
        self.scale, self.remove_net_force = float(scale), remove_net_force

    def forward(self, features: Sequence[Tensor], species: Tensor, batch: Tensor, num_graphs: int) -> dict[str, Tensor]:
        vectors = split_blocks(features[self.layer], self.irreps_layers[self.layer])[self.block]
        scalars = features[-1][:, : self.num_scalars]
        gates = self.weight + scalars @ (self.gates * self.num_scalars**-0.5)
        forces = (vectors * gates[:, None, :]).sum(dim=2) * (self.scale * (2 * self.weight.shape[0]) ** -0.5)
        forces = forces.double()
        if self.remove_net_force:
            sums = segment_sum(torch.cat([forces, forces.new_ones(len(forces), 1)], dim=1), batch, num_graphs)
            # A graph without atoms has no mean, and no atom that would read it.
            forces = forces - (sums[:, :3] / sums[:, 3:].clamp(min=1))[batch]
        return {"forces": forces}


def _find_vectors(irreps_layers: Sequence[Irreps]) -> tuple[int, int]:
    """Return (layer, block) of the last vectors 1o, or where there are none of the last 1e.

    Raises:
        ConfigError: no layer has vectors.
    """
    for wanted in (_VECTOR, _EVEN_VECTOR):
        for layer in reversed(range(len(irreps_layers))):
            for block, (_, ir) in enumerate(irreps_layers[layer]):
                if ir == wanted:
                    return layer, block
    found = ", then ".join(map(str, irreps_layers))
    raise ConfigError(
        f"DirectForces needs vectors 1o after some layer; here the features are {found}. "
        "Add 32x1o to model.irreps_hidden, and take num_layers of at least 2: the last layer keeps scalars only."
    )
