"""SevenNet checkpoints as models of ours: same energies, no code of that package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from e3nn.math import normalize2mom
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError, DataError, ModelFileError
from mlip.data.formats.safe_pickle import torch_load
from mlip.models.build import build_model
from mlip.models.convolution_network import ConvolutionNetwork
from mlip.models.foreign.sevennet_settings import LevelOfTheoryError, SevenNetSettings, read_settings
from mlip.models.foreign.sevennet_tensors import Linear, Tensors
from mlip.nn.activations import SiLU
from mlip.ops.wigner import wigner_3j

SORTED_SINCE = (0, 11)
"""Version from which on the weights of a convolution are ordered by its output."""


def read_sevennet(
    path: str | os.PathLike[str], modality: str | None = None, dtype: torch.dtype = torch.float32
) -> ConvolutionNetwork:
    """Read a checkpoint (``.pth``) of the ``sevenn`` package.

    Nothing of the file is run, and the package is not needed. Constants in which the two differ (the second moment
    of SiLU, norms of the radial basis, signs of 3j symbols) are absorbed in the linear maps beside them in float64.

    Args:
        path: the checkpoint.
        modality: level of theory of a multi-fidelity checkpoint, as it names it.
        dtype: of the weights.

    Raises:
        ModelFileError: the file is damaged, is no such checkpoint, or holds a form of the network that this
            importer does not know.
    """
    try:
        content = torch_load(path)
    except DataError as error:
        raise ModelFileError(str(error)) from error
    try:
        config, state = _parts(content)
        return _convert(read_settings(config, modality), Tensors(state)).to(dtype)
    except LevelOfTheoryError as error:
        raise ModelFileError(f"'{path}' {error}") from error
    except (ModelFileError, ConfigError) as error:
        raise ModelFileError(f"'{path}' is no SevenNet checkpoint that can be imported: {error}.") from error


def _parts(content: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    if not isinstance(content, Mapping):
        raise ModelFileError(f"it holds a {type(content).__name__}, not the parts of a checkpoint")
    for name in ("config", "model_state_dict"):
        if not isinstance(content.get(name), Mapping):
            raise ModelFileError(f"it has no '{name}'")
    return content["config"], content["model_state_dict"]


def _convert(settings: SevenNetSettings, tensors: Tensors) -> ConvolutionNetwork:
    """Build the model and fill it."""
    denominators = [float(tensors.take(f"{k}_convolution.denominator", 1)) for k in range(settings.num_layers)]
    if min(denominators) <= 0:
        raise ModelFileError(f"its convolutions are divided by {min(denominators)}, not by a number of neighbours")
    gain = normalize2mom(torch.nn.functional.silu).cst / SiLU.gain
    scales, energies, weights = _energies(settings, tensors, gain)
    same = len(set(scales.values())) == 1
    config = settings.model_config(denominators[0], next(iter(scales.values())) if same else scales, energies)
    model = build_model(config, dtype=torch.float64)
    embedding = tensors.take_linear(
        "onehot_to_feature_x.linear",
        Irreps([(len(settings.species), "0e")]),
        settings.hidden[:1],
        _extra(settings, "embedding"),
        settings.bias,
    )
    (matrix,) = embedding.matrices.values()
    weights["embedding"] = matrix[_rows(settings)] + _constant(settings, embedding)
    # The package divides sin by r and the cutoff as it is; ours is normalised, so that its radial weights see the rest.
    frequencies = tensors.take("edge_embedding.basis_function.coeffs", settings.num_basis)
    weights["edges.basis.basis.orders"] = frequencies * settings.cutoff / torch.pi
    norm = 2 / settings.cutoff / (2**0.5 * settings.cutoff * model.edges.basis.gain)
    for k, layer in enumerate(model.layers):
        names = _convolution(layer.convolution, settings, tensors, k, (norm, gain), denominators[0] / denominators[k])
        weights |= {f"layers.{k}.convolution.{name}": value for name, value in names.items()}
    tensors.finish()
    _load(model, weights)
    return model


def _convolution(
    convolution: Any,
    settings: SevenNetSettings,
    tensors: Tensors,
    number: int,
    gains: tuple[float, float],
    share: float,
) -> dict[str, Tensor]:
    """Return the weights of one convolution by their names in ours.

    Args:
        convolution: ours.
        settings, tensors: of the checkpoint.
        number: of the layer.
        gains: of the radial basis and of the activation, theirs over ours.
        share: by which the sum over neighbours is to be multiplied beside our own factor.
    """
    product = convolution.tensor_product
    before, after = product.irreps_in1, convolution.linear.irreps_out
    basis_gain, gain = gains
    # Features behind a gate are larger there than here by the gain; embeddings are the same.
    size = gain if number else 1.0
    found: dict[str, Tensor] = {}
    first = tensors.take_linear(
        f"{number}_self_interaction_1.linear", before, before, _extra(settings, "linear_in"), settings.bias
    )
    found |= _named("linear_in", convolution.linear_in, first, settings, size)
    if settings.per_element:
        name = f"{number}_self_connection_intro.fc_tensor_product"
        own = tensors.take_species_product(name, before, len(settings.species), after)
        for k, (_, ir) in enumerate([block for block in after if block.ir in own.matrices]):
            matrix = own.matrices[ir][_rows(settings)] * size
            found[f"self_connection.weights.{k}"] = matrix * matrix.shape[1] ** 0.5
    else:
        own = tensors.take_linear(f"{number}_self_connection_intro.linear", before, after)
        found |= _named("self_connection.linear", convolution.self_connection.linear, own, settings, size)
    name = f"{number}_convolution"
    order = _paths(product, name, settings, tensors)
    widths = [settings.num_basis, *settings.widths, sum(mul for mul, _ in order.values())]
    for k, (wide, out) in enumerate(pairwise(widths)):
        weight = tensors.take(f"{name}.weight_nn.layer{k}.weight", wide, out) * (gain if k else basis_gain)
        found[f"radial_weights.weights.{k}"] = weight
    columns = dict(zip(order, weight.split([mul for mul, _ in order.values()], dim=1)))
    keys = [_key(product, path) for path in product.paths]
    found[f"radial_weights.weights.{k}"] = torch.cat([columns[key] * order[key][1] for key in keys], dim=1)
    found |= _second(convolution, settings, tensors, number, list(order), share)
    return found


def _second(
    convolution: Any, settings: SevenNetSettings, tensors: Tensors, number: int, order: list[Any], share: float
) -> dict[str, Tensor]:
    """Return the weights of the linear map behind the sum, its rows in the order of our paths."""
    product = convolution.tensor_product
    muls = {ir: 0 for ir in sorted(ir for *_, ir in order)}
    for first, _, ir in order:
        muls[ir] += product.irreps_in1.count(first)
    source = Irreps([(mul, ir) for ir, mul in muls.items()])
    name = f"{number}_self_interaction_2.linear"
    linear = tensors.take_linear(name, source, convolution.linear.irreps_out, _extra(settings, "linear"), settings.bias)
    ours = [_key(product, path) for path in product.paths]
    matrices = {}
    for ir, matrix in linear.matrices.items():
        theirs = [key for key in order if key[2] == ir]
        rows = dict(zip(theirs, matrix.split([product.irreps_in1.count(key[0]) for key in theirs])))
        matrices[ir] = torch.cat([rows[key] for key in ours if key[2] == ir]) * share
    sorted_linear = Linear(matrices, None, _constant(settings, linear))
    return _named("linear", convolution.linear, sorted_linear, settings, 1.0)


def _key(product: Any, path: Any) -> tuple[Any, Any, Any]:
    return product.irreps_in1[path.in1].ir, product.irreps_in2[path.in2].ir, path.ir_out


def _paths(product: Any, name: str, settings: SevenNetSettings, tensors: Tensors) -> dict[Any, tuple[int, float]]:
    """Return (channels, sign) of the paths of their product in the order of their weights, by irreps."""
    lmax = max(path.ir_out.l for path in product.paths)
    keys = [
        (first, second, ir)
        for _, first in product.irreps_in1
        for _, second in product.irreps_in2
        for ir in first * second
        if ir.l <= lmax
    ]
    if settings.version >= SORTED_SINCE:
        keys.sort(key=lambda key: key[2])
    symbols = tensors.take_symbols(name)
    return {key: (product.irreps_in1.count(key[0]), _sign(symbols, tuple(ir.l for ir in key), name)) for key in keys}


def _sign(symbols: Mapping[tuple[int, ...], Tensor], degrees: tuple[int, ...], name: str) -> float:
    """Return the sign of their 3j symbol relative to ours."""
    if degrees not in symbols:
        return 1.0
    ours = wigner_3j(*degrees)
    for sign in (1.0, -1.0):
        if torch.allclose(symbols[degrees], sign * ours, atol=1e-5):
            return sign
    raise ModelFileError(f"its 3j symbol {degrees} of '{name}' is none")


def _named(name: str, module: Any, linear: Linear, settings: SevenNetSettings, size: float) -> dict[str, Tensor]:
    """Return the parameters of one of our linear maps."""
    irreps = [ir for (_, ir), source in zip(module.irreps_out, module.sources) if source]
    found = {}
    for k, ir in enumerate(irreps):
        matrix = linear.matrices[ir]
        found[f"{name}.weights.{k}"] = matrix * (size * matrix.shape[0] ** 0.5)
    if module.bias is not None:
        found[f"{name}.bias"] = _constant(settings, linear)
    return found


def _energies(
    settings: SevenNetSettings, tensors: Tensors, gain: float
) -> tuple[dict[str, float], dict[str, float], dict[str, Tensor]]:
    """Return scales and energies of the atoms by element, and the weights of the readout."""
    scalars = settings.hidden[:1]
    hidden = Irreps([(scalars.dim // 2, "0e")])
    first = tensors.take_linear(
        "reduce_input_to_hidden.linear", scalars, hidden, _extra(settings, "readout"), settings.bias
    )
    second = tensors.take_linear("reduce_hidden_to_energy.linear", hidden, Irreps("0e"), bias=settings.bias)
    (inner,), (outer,) = first.matrices.values(), second.matrices.values()
    scales, shifts = _rescaling(settings, tensors)
    shifts = shifts + scales * (_constant(settings, first) @ outer[:, 0] + second.bias)
    weights = {
        "heads.energy.readouts.0.weights.0": inner * gain * inner.shape[0] ** 0.5,
        "heads.energy.readouts.0.weights.1": outer * outer.shape[0] ** 0.5,
    }
    by_element = [dict(zip(settings.elements, values.tolist())) for values in (scales, shifts)]
    return *by_element, weights


def _rescaling(settings: SevenNetSettings, tensors: Tensors) -> tuple[Tensor, Tensor]:
    """Return scales and shifts of the elements, ordered by atomic number."""
    count = len(settings.species)
    found = []
    for name in ("scale", "shift"):
        value = tensors.take_any(f"rescale_atomic_energy.{name}", (count,), (1,), _per_level(settings))
        if value.dim() == 2:
            value = value[settings.modality.index]
        found.append(value[_rows(settings)] if len(value) == count else value.expand(count))
    if found[0].min() <= 0:
        raise ModelFileError(f"it scales energies by {float(found[0].min())}, not by a positive number")
    return found[0], found[1]


def _per_level(settings: SevenNetSettings) -> tuple[int, ...]:
    return (settings.modality.count, len(settings.species)) if settings.modality else (len(settings.species),)


def _rows(settings: SevenNetSettings) -> list[int]:
    return [settings.species[number] for number in sorted(settings.species)]


def _extra(settings: SevenNetSettings, name: str) -> int:
    return settings.modality.count if settings.modality and name in settings.modality.linears else 0


def _constant(settings: SevenNetSettings, linear: Linear) -> Tensor:
    return linear.constant(settings.modality.index if settings.modality else 0)


def _load(model: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    wanted = model.state_dict()
    if set(wanted) != set(weights) or any(wanted[name].shape != value.shape for name, value in weights.items()):
        raise ModelFileError("its weights do not fit the model that its settings describe")
    model.load_state_dict(weights)
