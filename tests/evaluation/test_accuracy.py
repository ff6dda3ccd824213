"""Accuracy: the class by the largest score, mirror images by the sign of the chirality."""

from __future__ import annotations

import numpy as np
import pytest

from mlip.data.datasets.tetris import TetrisDataset
from mlip.evaluation.accuracy import Accuracy, accuracy

SAMPLES = list(TetrisDataset(rotations=0))


def right_predictions() -> list[dict[str, np.ndarray]]:
    return [{name: 0.6 * value for name, value in sample.labels.items()} for sample in SAMPLES]


def test_all_right() -> None:
    found = accuracy(SAMPLES, right_predictions())
    assert found == Accuracy(8, 8)
    assert str(found) == "8/8"
    assert found.as_dict() == {"right": 8, "total": 8}


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_without_handedness_one_of_two_mirror_images_is_right(zero: float) -> None:
    predictions = right_predictions()
    for prediction in predictions:
        prediction["chirality"] = np.array(zero)
    assert accuracy(SAMPLES, predictions) == Accuracy(7, 8)


def test_wrong_hand_wrong_shape_and_noise_on_what_has_no_hand() -> None:
    predictions = right_predictions()
    predictions[0]["chirality"] = np.array(-1.0)
    predictions[3]["class_scores"] = np.eye(7)[0]
    predictions[4]["chirality"] = np.array(-0.3)
    assert accuracy(SAMPLES, predictions) == Accuracy(6, 8)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["class_scores", "chirality"])
def test_a_prediction_that_is_not_finite_is_wrong(field: str, value: float) -> None:
    predictions = right_predictions()
    for prediction in predictions:
        prediction[field] = np.full_like(prediction[field], value)
    assert accuracy(SAMPLES, predictions) == Accuracy(0, 8)


def test_a_handedness_that_is_nan_is_no_label() -> None:
    samples = list(TetrisDataset(rotations=0))
    for sample in samples[:2]:
        sample.labels["chirality"] = np.array(np.nan)
    assert accuracy(samples, right_predictions()) == Accuracy(8, 8)


def test_only_what_is_labelled_and_predicted_counts() -> None:
    samples = list(TetrisDataset(rotations=0))
    del samples[1].labels["class_scores"]
    samples[2].labels["class_scores"] = np.full(7, np.nan)
    assert accuracy(samples, right_predictions()) == Accuracy(6, 6)
    energies = [{"energy": np.array(1.0)} for _ in samples]
    assert accuracy(samples, energies) is None
