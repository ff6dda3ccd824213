"""Diffusion and vibrations: mean square displacements, velocity autocorrelation and its spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.units import _c

from mlip.core.errors import SimulationError
from mlip.simulate.analysis.motion import Motion

BLOCKS = 5
"""Parts of a trajectory whose spread tells the error of a diffusion constant."""

CM2_PER_S = 1e-16 / 1e-15
"""One Å²/fs in cm²/s."""


@dataclass(frozen=True)
class Diffusion:
    """Mean square displacement and diffusion constant of one species.

    Attributes:
        time: (lags,) fs.
        msd: (lags,) Å².
        constant: cm²/s, a sixth of the slope.
        error: cm²/s, standard error from blocks of the trajectory; None if they are too short.
        exponent: slope in a double logarithmic plot over the fitted range: 1 diffuses, 2 flies, 0 is bound.
    """

    time: np.ndarray
    msd: np.ndarray
    constant: float
    error: float | None
    exponent: float


def mean_square_displacement(positions: np.ndarray) -> np.ndarray:
    """Average |r(t + τ) − r(t)|² over atoms and all time origins t, through Fourier transforms.

    Args:
        positions: (frames, atoms, 3), unwrapped.

    Returns:
        (frames,) by the lag τ in frames (Kneller et al., Comput. Phys. Commun. 91, 191, 1995).
    """
    frames = len(positions)
    # Near the origin, where squares have all their digits.
    centred = positions - positions.mean(axis=0)
    square = (centred**2).sum(axis=2).mean(axis=1)
    correlation = _autocorrelation(centred).sum(axis=2).mean(axis=1)
    total = np.concatenate([[0.0], np.cumsum(square)])
    lags = np.arange(frames)
    heads, tails = total[frames - lags], total[frames] - total[lags]
    found = np.maximum((heads + tails) / (frames - lags) - 2 * correlation, 0.0)
    found[0] = 0.0
    return found


def _autocorrelation(values: np.ndarray) -> np.ndarray:
    """Return the mean over time origins of v(t) v(t + τ), (frames, atoms, 3)."""
    frames = len(values)
    size = 1 << (2 * frames - 1).bit_length()
    found = np.empty_like(values)
    # Atom by atom: the transforms of all would need several times the memory of the trajectory.
    for k in range(values.shape[1]):
        spectrum = np.fft.rfft(values[:, k], n=size, axis=0)
        found[:, k] = np.fft.irfft(np.abs(spectrum) ** 2, n=size, axis=0)[:frames]
    return found / (frames - np.arange(frames))[:, None, None]


def diffusion(
    motion: Motion, number: int | None = None, fit: tuple[float, float] = (0.1, 0.5), blocks: int = BLOCKS
) -> Diffusion:
    """Fit the diffusion constant of a species (Einstein's relation, 2 d D τ = msd at long τ).

    The motion of the centre of mass of all atoms is taken out along those directions in which constraints do not hold
    it. Atoms that cannot move are left out. The dimension d is 3, or less in the mean where constraints hold atoms to
    planes and lines.

    Args:
        motion: the trajectory.
        number: atomic number; None for all atoms.
        fit: the lags that are fitted, as parts of the longest one in a block.
        blocks: the line is fitted to the lags that a block has, in the whole and in every block, which gives the error.

    Raises:
        SimulationError: no such atoms that can move, or fewer than 8 frames.
    """
    chosen = motion.mobile if number is None else motion.mobile & (motion.numbers == number)
    frames = len(motion.time)
    if not chosen.any() or frames < 8:
        raise SimulationError(
            f"A diffusion constant needs atoms that can move and at least 8 frames, here are {chosen.sum()} atoms and "
            f"{frames} frames."
        )
    positions = motion.without_drift(motion.unwrapped)[:, chosen]
    if frames < 8 * blocks:
        blocks = 1
    length = frames // blocks
    low = max(1, int(fit[0] * length))
    high = max(low + 2, int(fit[1] * length))
    msd = mean_square_displacement(positions)
    time = motion.interval * np.arange(frames)
    parts = [positions[k * length : (k + 1) * length] for k in range(blocks)]
    slopes = [_slope(time[low:high], mean_square_displacement(part)[low:high]) for part in parts]
    scale = CM2_PER_S / (2 * float(motion.dimensions[chosen].mean()))
    constant = _slope(time[low:high], msd[low:high]) * scale
    error = float(np.std(slopes, ddof=1) / np.sqrt(blocks)) * scale if blocks > 1 else None
    inside = msd[low:high]
    exponent = _slope(np.log(time[low:high]), np.log(inside)) if (inside > 0).all() else 0.0
    return Diffusion(time, msd, constant, error, exponent)


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    centred = x - x.mean()
    return float(centred @ (y - y.mean()) / (centred @ centred))


@dataclass(frozen=True)
class Vibrations:
    """How velocities are correlated in time, and at which frequencies atoms move.

    Attributes:
        time: (lags,) fs.
        autocorrelation: (lags,) mass-weighted, 1 at lag 0.
        wave_number: (points,) 1/cm.
        spectrum: (points,) density of the kinetic energy over wave numbers, cm, whose integral is 1.
        highest: 1/cm, above which frames are too far apart to see anything; faster motion is seen at a wrong,
            lower place.
    """

    time: np.ndarray
    autocorrelation: np.ndarray
    wave_number: np.ndarray
    spectrum: np.ndarray
    highest: float

    @property
    def peak(self) -> float:
        """Wave number of the largest value of the spectrum, 1/cm, between points by a parabola."""
        k = int(np.argmax(self.spectrum))
        if not 0 < k < len(self.spectrum) - 1:
            return float(self.wave_number[k])
        left, middle, right = self.spectrum[k - 1 : k + 2]
        curvature = left - 2 * middle + right
        shift = 0.0 if curvature == 0 else 0.5 * (left - right) / curvature
        return float(self.wave_number[k] + shift * (self.wave_number[1] - self.wave_number[0]))


def vibrations(motion: Motion, segments: int = 4) -> Vibrations:
    """Compute the velocity autocorrelation and the vibrational spectrum.

    The spectrum is the mass-weighted power of the velocities, averaged over overlapping segments under a Hann window
    (Welch, IEEE Trans. Audio Electroacoust. 15, 70, 1967), which is the Fourier transform of the autocorrelation.
    The motion of the centre of mass, which Langevin dynamics has, is no vibration and taken out as in `diffusion`.

    Args:
        motion: with velocities, at least 16 frames.
        segments: more give a smoother and coarser spectrum.

    Raises:
        SimulationError: no velocities, or too few frames.
    """
    if motion.velocities is None:
        raise SimulationError("The trajectory has no velocities, so there is no spectrum.")
    frames = len(motion.time)
    if frames < 16:
        raise SimulationError(f"A spectrum needs at least 16 frames, here are {frames}.")
    weighted = motion.without_drift(motion.velocities) * np.sqrt(motion.masses)[:, None]
    correlation = _autocorrelation(weighted).sum(axis=(1, 2))
    length = min(frames, 2 * frames // (segments + 1))
    window = np.hanning(length + 1)[:-1, None, None]
    size = 4 * length
    power = np.zeros(size // 2 + 1)
    for begin in range(0, frames - length + 1, max(1, length // 2)):
        part = weighted[begin : begin + length]
        power += (np.abs(np.fft.rfft(part * window, n=size, axis=0)) ** 2).sum(axis=(1, 2))
    per_fs = np.fft.rfftfreq(size, motion.interval)
    wave_number = per_fs * 1e15 / (_c * 100)
    area = np.trapezoid(power, wave_number)
    return Vibrations(
        time=motion.interval * np.arange(frames),
        autocorrelation=correlation / correlation[0] if correlation[0] > 0 else correlation,
        wave_number=wave_number,
        spectrum=power / area if area > 0 else power,
        highest=float(wave_number[-1]),
    )
