"""What a training prints before it starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from torch.optim import Optimizer

    from mlip.data.parts import Parts
    from mlip.models.base import AtomisticModel


def describe(console: Console, model: AtomisticModel, parts: Parts, settings: dict[str, Any], folder: Path) -> None:
    """Say what is trained, on what, and where it goes."""
    from mlip.models.potential import Potential

    # A list of heads replaces the model's own, such as MACE's readout of all layers: say which ones these are.
    heads = f"heads: {', '.join(model.heads)}; " if isinstance(model, Potential) else ""
    from mlip.data.elements import list_elements

    console.print(
        f"{type(model).__name__} with {model.num_parameters:,} parameters for {list_elements(model.elements)}, "
        f"cutoff {model.cutoff} Å, {settings['dtype']}; {heads}{len(parts.train)} structures to train, "
        f"{len(parts.valid)} to validate; run folder {folder}",
        highlight=False,
        soft_wrap=True,
    )
    # Components that choose by measurement say what they chose.
    choices = Counter(str(part.choice) for part in model.modules() if hasattr(part, "choice"))
    if choices:
        listing = ", ".join(f"{name} ({count}x)" for name, count in choices.items())
        console.print(f"Fastest of the candidates here: {listing}", highlight=False)


def describe_groups(console: Console, model: AtomisticModel, optimizer: Callable[..., Optimizer]) -> None:
    """Print the parts of a model that learn at different rates, and how much is frozen; nothing where all are alike.

    Args:
        console: where to print.
        model: its frozen parameters are marked as such.
        optimizer: factory, takes the model.

    Raises:
        ConfigError: the optimiser refuses its options.
    """
    from rich.table import Table

    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    groups = optimizer(model).param_groups
    parts = dict.fromkeys(group.get("part", "all") for group in groups)
    if len(parts) < 2 and not frozen:
        return
    table = Table("parameters of", "number", "learning rate", box=None, pad_edge=False)
    for part in parts:
        members = [group for group in groups if group.get("part", "all") == part]
        number = sum(p.numel() for group in members for p in group["params"])
        table.add_row(part, f"{number:,}", f"{members[0]['lr']:.3g}")
    if frozen:
        table.add_row("frozen parts", f"{frozen:,}", "0")
    console.print(table)
