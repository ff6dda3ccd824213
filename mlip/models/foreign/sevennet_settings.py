"""The settings in a SevenNet checkpoint: what they say, and the model of ours that has the same form."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ase.data import chemical_symbols
from e3nn.o3 import Irrep, Irreps

from mlip.core.errors import ModelFileError, did_you_mean
from mlip.ops.tensor_product.base import LARGEST_DEGREE

_NN, _OPS = "mlip.nn", "mlip.ops"
_REQUIRED = object()

LARGEST_WIDTH = 10_000
"""Channels, functions or layers. A damaged number must not fill the memory."""


class LevelOfTheoryError(ModelFileError):
    """The checkpoint is one, and the level of theory that was asked for is not in it."""


@dataclass(frozen=True)
class Modality:
    """One of the levels of theory of a multi-fidelity checkpoint.

    Attributes:
        index: its place among them.
        count: how many there are.
        linears: which linear maps of the network see it: ``embedding``, ``linear_in``, ``linear``, ``readout``.
    """

    index: int
    count: int
    linears: frozenset[str]


@dataclass(frozen=True)
class SevenNetSettings:
    """The architecture in a checkpoint (names as there, with our words for what they mean).

    Attributes:
        version: of the package that wrote it.
        species: row of every atomic number.
        cutoff: Å.
        hidden: features between the layers.
        num_layers: interactions.
        lmax_edge: degree of the spherical harmonics.
        num_basis: Bessel functions.
        envelope: configuration of ours.
        widths: of the radial perceptron's hidden layers.
        per_element: each layer, whether its self-connection depends on the element.
        solid_harmonics: the harmonics are not those of unit vectors.
        bias: whether linear maps have biases.
        modality: level of theory; None where there is only one.
    """

    version: tuple[int, ...]
    species: Mapping[int, int]
    cutoff: float
    hidden: Irreps
    num_layers: int
    lmax_edge: int
    num_basis: int
    envelope: Mapping[str, Any]
    widths: tuple[int, ...]
    per_element: bool
    solid_harmonics: bool
    bias: bool
    modality: Modality | None

    @property
    def elements(self) -> list[str]:
        """Chemical symbols by atomic number."""
        return [chemical_symbols[number] for number in sorted(self.species)]

    def model_config(
        self, num_neighbors: float, scale: float | Mapping[str, float], atomic_energies: Mapping[str, float]
    ) -> dict[str, Any]:
        """Return the configuration of the model of ours with the same form."""
        return {
            "_target_": "mlip.models.convolution_network.ConvolutionNetwork",
            "elements": self.elements,
            "num_neighbors": num_neighbors,
            "cutoff": self.cutoff,
            "irreps_hidden": str(self.hidden),
            "num_layers": self.num_layers,
            "lmax_edge": self.lmax_edge,
            "edge_parity": "even",
            "solid_harmonics": self.solid_harmonics,
            "neighbor_exponent": 1.0,
            "linear_in": True,
            "bias": self.bias or self.modality is not None,
            "residual": False,
            "norm": None,
            "tensor_product": _part(f"{_OPS}.tensor_product.clebsch_gordan_dense.ClebschGordanDense"),
            "radial": _part(f"{_OPS}.radial.bessel.Bessel", num_basis=self.num_basis, trainable=True),
            "envelope": dict(self.envelope),
            "radial_weights": _part(f"{_NN}.radial_weights.mlp.RadialMLP", hidden=list(self.widths)),
            "self_connection": _part(
                f"{_NN}.self_connection.species.SpeciesSelfConnection"
                if self.per_element
                else f"{_NN}.self_connection.linear.LinearSelfConnection"
            ),
            "nonlinearity": _part(f"{_NN}.nonlinearity.gate.Gate"),
            "activation": {"_target_": f"{_NN}.activations.SiLU"},
            "head": {
                "energy": _part(
                    f"{_NN}.heads.energy.EnergyHead",
                    atomic_energies=dict(atomic_energies),
                    scale=scale,
                    shift=0.0,
                    learned_scales=False,
                    hidden=[self.hidden[0].mul // 2],
                )
            },
            "pair_term": {},
            "conditioning": {},
            "graph": {"_target_": "mlip.data.graphs.radius.Radius", "cutoff": self.cutoff},
        }


def _part(target: str, **options: Any) -> dict[str, Any]:
    return {"_target_": target, "_partial_": True, **options}


def read_settings(config: Mapping[str, Any], modality: str | None = None) -> SevenNetSettings:
    """Read and check the settings of a checkpoint.

    Args:
        config: the ``config`` of the checkpoint, plain values.
        modality: level of theory of a multi-fidelity checkpoint, as the checkpoint names it.

    Raises:
        ModelFileError: a setting is absent, is not what it should be, or asks for what this importer does not know.
        LevelOfTheoryError: one must be chosen, or there is no such one.
    """
    _expect(config, "_model_type", ("E3_equivariant_model",))
    _expect(config, "interaction_type", ("nequip",), "nequip")
    _expect(config, "is_parity", (False,))
    _expect(config, "readout_as_fcn", (False,), False)
    _expect(config, "act_radial", ("silu",))
    # Another order of sums and weights, which newer versions of the package refuse, too.
    _expect(config, "optimize_by_reduce", (True,), True)
    for name in ("act_scalar", "act_gate"):
        _expect(_get(config, name, dict), "e", ("silu",), within=name)
    version = _version(_get(config, "version", str))
    num_layers = _whole(config, "num_convolution_layer")
    basis = _get(config, "radial_basis", dict)
    _expect(basis, "radial_basis_name", ("bessel",), within="radial_basis")
    cutoff = float(_get(config, "cutoff", (int, float)))
    if not 0 < cutoff < 100:
        raise ModelFileError(f"its setting 'cutoff' is {cutoff}, which is no radius in Å")
    lmax = _whole(config, "lmax", least=0, most=LARGEST_DEGREE)
    # Checkpoints of the first versions have no such key and were trained on harmonics that grow as r^l.
    normalized = _get(config, "_normalize_sph", bool, version >= (0, 10))
    return SevenNetSettings(
        version=version,
        species=_species(config),
        cutoff=cutoff,
        hidden=_hidden(config, num_layers, lmax),
        num_layers=num_layers,
        lmax_edge=_own_degree(config, "lmax_edge", lmax),
        num_basis=_whole(basis, "bessel_basis_num", 8),
        envelope=_envelope(_get(config, "cutoff_function", dict), cutoff),
        widths=_widths(config),
        per_element=_self_connection(config, num_layers),
        solid_harmonics=not normalized,
        bias=_get(config, "use_bias_in_linear", bool, False),
        modality=_modality(config, modality),
    )


def _get(config: Mapping[str, Any], name: str, kind: type | tuple[type, ...], default: Any = _REQUIRED) -> Any:
    value = config.get(name, default)
    if value is _REQUIRED:
        raise ModelFileError(f"its settings lack '{name}'")
    if not isinstance(value, kind):
        raise ModelFileError(f"its setting '{name}' is {value!r}, which it cannot be")
    return value


def _expect(
    config: Mapping[str, Any], name: str, known: tuple[Any, ...], default: Any = _REQUIRED, within: str = ""
) -> None:
    value = _get(config, name, (str, bool, int, type(None)), default)
    if value not in known:
        label = f"{within}.{name}" if within else name
        raise ModelFileError(f"its setting {label} = {value!r} is not supported, only {known[0]!r} is")


def _whole(
    config: Mapping[str, Any], name: str, default: Any = _REQUIRED, least: int = 1, most: int = LARGEST_WIDTH
) -> int:
    value = _get(config, name, int, default)
    if isinstance(value, bool) or not least <= value <= most:
        raise ModelFileError(f"its setting '{name}' is {value!r}, which it cannot be")
    return value


def _own_degree(config: Mapping[str, Any], name: str, lmax: int) -> int:
    """Return a degree that is ``lmax`` unless it is set; -1 and 0 say that it is not."""
    value = _whole(config, name, -1, least=-1, most=LARGEST_DEGREE)
    return value if value > 0 else lmax


def _version(text: str) -> tuple[int, ...]:
    parts = text.split(".")[:2]
    if len(parts) < 2 or not all(part.isdigit() for part in parts):
        raise ModelFileError(f"its setting 'version' is {text!r}, which is no version")
    return tuple(int(part) for part in parts)


def _species(config: Mapping[str, Any]) -> dict[int, int]:
    species = _get(config, "_type_map", dict)
    numbers = all(isinstance(z, int) and 0 < z < len(chemical_symbols) for z in species)
    if not species or not numbers or not _counts_from_zero(species.values()):
        raise ModelFileError("its setting '_type_map' does not number chemical elements from 0 on")
    return dict(species)


def _counts_from_zero(values: Collection[Any]) -> bool:
    return all(type(value) is int for value in values) and sorted(values) == list(range(len(values)))


def _hidden(config: Mapping[str, Any], num_layers: int, lmax: int) -> Irreps:
    """Return the features between the layers; the first and the last have the scalars only."""
    manual = config.get("irreps_manual", False)
    degree = _own_degree(config, "lmax_node", lmax)
    if manual is False:
        channels = _whole(config, "channel")
        return Irreps([(channels, (l, 1)) for l in range(degree + 1)])
    try:
        listed = [Irreps(text) for text in manual]
    except (TypeError, ValueError, AssertionError) as error:
        raise ModelFileError("its setting 'irreps_manual' is no list of irreps") from error
    hidden = listed[1] if len(listed) > 2 else listed[0] if listed else Irreps()
    scalars = Irreps([block for block in hidden if block.ir == Irrep("0e")])
    if len(listed) != num_layers + 1 or not scalars or listed != [scalars, *[hidden] * (num_layers - 1), scalars]:
        raise ModelFileError(
            f"its features {', '.join(map(str, listed))} are not the same behind every layer, with the scalars of "
            "these before the first and behind the last: other forms are not supported"
        )
    return hidden


def _envelope(settings: Mapping[str, Any], cutoff: float) -> dict[str, Any]:
    name = _get(settings, "cutoff_function_name", str)
    if name == "poly_cut":
        return _part(f"{_OPS}.envelope.polynomial.Polynomial", p=_whole(settings, "poly_cut_p_value", 6, least=2))
    if name == "XPLOR":
        onset = float(_get(settings, "cutoff_on", (int, float)))
        if not 0 <= onset < cutoff:
            raise ModelFileError(f"its setting 'cutoff_on' is {onset}, not a radius below the cutoff of {cutoff} Å")
        return _part(f"{_OPS}.envelope.xplor.Xplor", onset=onset / cutoff)
    raise ModelFileError(f"its setting cutoff_function_name = {name!r} is not supported, only 'XPLOR' and 'poly_cut'")


def _widths(config: Mapping[str, Any]) -> tuple[int, ...]:
    widths = _get(config, "weight_nn_hidden_neurons", list)
    if not widths or any(type(width) is not int or not 0 < width <= LARGEST_WIDTH for width in widths):
        raise ModelFileError(f"its setting 'weight_nn_hidden_neurons' is {widths!r}, no list of widths")
    return tuple(widths)


def _self_connection(config: Mapping[str, Any], num_layers: int) -> bool:
    kinds = _get(config, "self_connection_type", (str, list), "nequip")
    kinds = [kinds] * num_layers if isinstance(kinds, str) else kinds
    if len(kinds) != num_layers or kinds not in (["nequip"] * num_layers, ["linear"] * num_layers):
        raise ModelFileError(
            f"its setting self_connection_type = {kinds!r} is not supported: only 'linear' or 'nequip' in every layer"
        )
    return kinds[0] == "nequip"


def _modality(config: Mapping[str, Any], wanted: str | None) -> Modality | None:
    if not _get(config, "use_modality", bool, False):
        if wanted is not None:
            raise LevelOfTheoryError(
                f"has one level of theory only, and '{wanted}' was asked for: leave --modality out."
            )
        return None
    places = _get(config, "_modal_map", dict)
    if not places or not all(isinstance(name, str) for name in places):
        raise ModelFileError("its setting '_modal_map' does not name the levels of theory")
    if wanted not in places:
        near = did_you_mean(wanted.upper(), places) if wanted else ""
        raise LevelOfTheoryError(
            f"holds the levels of theory {' and '.join(places)}, and a model file has one: choose it with "
            f"{' or '.join(f'--modality {name}' for name in places)}; got {wanted or 'none'}.{near}"
        )
    if not _counts_from_zero(places.values()):
        raise ModelFileError("its setting '_modal_map' does not number the levels of theory from 0 on")
    keys = {
        "embedding": "use_modal_node_embedding",
        "linear_in": "use_modal_self_inter_intro",
        "linear": "use_modal_self_inter_outro",
        "readout": "use_modal_output_block",
    }
    linears = frozenset(name for name, key in keys.items() if _get(config, key, bool, False))
    return Modality(places[wanted], len(places), linears)
