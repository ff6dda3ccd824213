"""A committee of readouts on one backbone: their mean is the energy, their spread its uncertainty."""

from collections.abc import Callable, Sequence

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.heads.base import Head
from mlip.ops.structure_draws import structure_draws


class CommitteeHead(Head):
    """``E_i = (1/k) Σ_m E_im``, with k energy heads m that are trained on different parts of the data.

    Trained on the mean alone, the members stay as far apart as their initial weights, whatever their error: their
    spread says nothing. So each member sees a structure with the probability ``share`` (a bootstrap), drawn from the
    positions of its atoms: the same members see the same structure in all epochs. While training, the energy is the
    mean over those that see it, and one backward pass gives its forces: a committee costs what one readout does.
    Evaluation takes the mean over all.

    Args:
        irreps_layers: features after each layer.
        elements: symbols in the order of the species index.
        head: factory of a head that provides ``energies``, such as :class:`mlip.nn.heads.energy.EnergyHead`.
        members: k, at least 2.
        share: probability that a member sees a structure, in (0, 1]; a structure that no member would see is seen by
            one. With 1 the members are trained on their mean.

    Raises:
        ConfigError: fewer than two members, an impossible share, or a head without ``energies``.
    """

    provides = ("energies", "energies_members")

    def __init__(
        self,
        irreps_layers: Sequence[Irreps],
        elements: tuple[str, ...],
        head: Callable[..., Head],
        members: int = 4,
        share: float = 0.5,
    ) -> None:
        super().__init__(irreps_layers, elements)
        if isinstance(members, bool) or not isinstance(members, int) or members < 2:
            raise ConfigError(f"A committee needs members >= 2, got {members!r}.")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise ConfigError(f"A member of a committee sees a share of the structures in (0, 1], got {share!r}.")
        self.members = nn.ModuleList(head(irreps_layers=irreps_layers, elements=elements) for _ in range(members))
        if any(not isinstance(member, Head) or tuple(member.provides) != ("energies",) for member in self.members):
            raise ConfigError("The members of a committee must be heads that provide energies and nothing else.")
        self.share = float(share)

    def forward(self, features: Sequence[Tensor], species: Tensor, batch: Tensor, num_graphs: int) -> dict[str, Tensor]:
        each = [member(features, species, batch, num_graphs)["energies"] for member in self.members]
        energies = torch.stack(each, dim=1)
        return {"energies": energies.mean(dim=1), "energies_members": energies}

    def in_training(
        self, fields: dict[str, Tensor], positions: Tensor, batch: Tensor, num_graphs: int
    ) -> dict[str, Tensor]:
        seen = self.seen(positions, batch, num_graphs)
        weights = (seen / seen.sum(dim=1, keepdim=True))[batch]
        return fields | {"energies": (weights * fields["energies_members"]).sum(dim=1)}

    def seen(self, positions: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
        """Return which members see which structure in training, ``(graphs, k)`` of 0 and 1 in float64."""
        draws = structure_draws(positions, batch, num_graphs, len(self.members) + 1)
        seen = (draws[:, :-1] < self.share).double()
        chosen = (draws[:, -1:] * len(self.members)).long()
        alone = torch.zeros_like(seen).scatter(1, chosen, 1.0)
        return torch.where(seen.any(dim=1, keepdim=True), seen, alone)
