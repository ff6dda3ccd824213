"""Whether the temperature of a run is distributed as in the canonical ensemble."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

FEWEST = 20
"""Independent values below which nothing is tested."""

WINDOW = 5.0
"""Correlation times over which the autocorrelation is summed (Sokal, Functional Integration, 1997, ch. 3)."""


@dataclass(frozen=True)
class TemperatureTest:
    """The kinetic energy of f degrees of freedom at temperature T is a gamma variable of shape f/2 and scale kT.

    T has the mean of the run, unless it was heated: a thermostat is checked by comparing the mean with what was asked
    for, in standard errors. Constant energy (NVE) gives a narrower distribution, a ramp a wider one.

    Attributes:
        correlation: rows after which temperatures are independent.
        independent: number of independent rows, spread evenly, that are tested.
        error: K, standard error of the mean, correlations included.
        variance_ratio: variance over 2 T² / f.
        variance_p: two-sided probability of such a ratio or one farther from 1 by chance. From resampled gamma
            variables, since the temperature of few atoms is far from normal.
        shape_p: likewise of the largest distance between cumulative distributions (Kolmogorov–Smirnov).
    """

    correlation: float
    independent: int
    error: float
    variance_ratio: float
    variance_p: float
    shape_p: float

    def as_dict(self) -> dict[str, float | int]:
        """Return the numbers by names for JSON."""
        return {
            "temperature_correlation_rows": self.correlation,
            "temperature_independent_rows": self.independent,
            "temperature_error_correlated_K": self.error,
            "temperature_variance_over_canonical": self.variance_ratio,
            "temperature_variance_p": self.variance_p,
            "temperature_distribution_p": self.shape_p,
        }


def correlation_length(values: np.ndarray) -> float:
    """Return the integrated autocorrelation time 1 + 2 Σ ρ in rows, at least 1.

    Args:
        values: (rows,), equally spaced in time.
    """
    centred = values - values.mean()
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    covariance = np.fft.irfft(np.abs(spectrum) ** 2)[: len(centred)]
    if covariance[0] <= 0:
        return float(len(values))
    lengths = 2 * np.cumsum(covariance / covariance[0]) - 1
    # Summed up to where the rest is noise.
    enough = np.flatnonzero(np.arange(len(lengths)) >= WINDOW * lengths)
    return max(1.0, float(lengths[enough[0] if len(enough) else -1]))


def temperature_test(temperature: np.ndarray, freedom: int, seed: int = 0) -> TemperatureTest | None:
    """Compare temperatures with the canonical distribution.

    Args:
        temperature: (rows,) K, equally spaced in time, equilibrated.
        freedom: degrees of freedom that they belong to.
        seed: of the resampling.

    Returns:
        The test, or None with fewer than 20 independent rows.
    """
    if len(temperature) < FEWEST:
        return None
    length = correlation_length(temperature)
    # Rows two correlation times apart: e^-4 of the correlation is left if it decays exponentially.
    independent = temperature[:: max(1, int(np.ceil(2 * length)))] if length > 1 else temperature
    number = len(independent)
    if number < FEWEST:
        return None
    mean, shape = float(temperature.mean()), freedom / 2
    ratio = float(independent.var(ddof=1)) / (mean**2 / shape)
    rng = np.random.default_rng(seed)
    drawn = np.array([rng.gamma(shape, 1 / shape, number).var(ddof=1) for _ in range(2000)]) * shape
    below = float((drawn <= ratio).mean())
    return TemperatureTest(
        correlation=length,
        independent=number,
        error=float(temperature.std() * np.sqrt(length / len(temperature))),
        variance_ratio=ratio,
        variance_p=max(2 * min(below, 1 - below), 1 / len(drawn)),
        shape_p=float(stats.kstest(independent, stats.gamma(shape, scale=mean / shape).cdf).pvalue),
    )


def histogram(temperature: np.ndarray, freedom: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return places in K, the density of the temperatures, and the canonical one at their mean, both in 1/K."""
    density, edges = np.histogram(temperature, bins=min(60, max(10, int(np.sqrt(len(temperature))))), density=True)
    places = (edges[1:] + edges[:-1]) / 2
    canonical = stats.gamma(freedom / 2, scale=2 * temperature.mean() / freedom).pdf(places)
    return places, density, canonical
