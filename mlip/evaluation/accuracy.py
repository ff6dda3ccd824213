"""How many structures are classified correctly: what the errors of class scores and chirality mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mlip.data.sample import Sample
from mlip.evaluation.predict import Prediction


@dataclass(frozen=True)
class Accuracy:
    """Structures that are classified correctly, out of those that have a class.

    Attributes:
        right, total: numbers of structures.
    """

    right: int
    total: int

    def __str__(self) -> str:
        return f"{self.right}/{self.total}"

    def as_dict(self) -> dict[str, int]:
        """Return plain data."""
        return asdict(self)


class AccuracyCount:
    """Counts structures whose class is recognised, one after the other.

    The class is the largest score; where the label has a handedness, the sign of the predicted chirality must be
    the same, too. A classifier has to answer: a chirality of exactly zero counts as positive, so that a model
    which cannot tell mirror images apart is right for one of the two. A prediction that is not finite is wrong; a
    handedness that is NaN is no label.
    """

    def __init__(self) -> None:
        self._right = self._total = 0

    def add(self, sample: Sample, prediction: Prediction) -> None:
        """Add a structure with labels and its prediction."""
        scores = sample.labels.get("class_scores")
        if scores is None or np.isnan(scores).any() or "class_scores" not in prediction:
            return
        self._total += 1
        handedness = float(sample.labels.get("chirality", np.nan))
        chirality = float(prediction.get("chirality", 0.0))
        # The largest of scores with a NaN is that NaN, and a NaN is not positive: both would pass for an answer.
        finite = bool(np.isfinite(prediction["class_scores"]).all() and np.isfinite(chirality))
        same_shape = int(np.argmax(prediction["class_scores"])) == int(np.argmax(scores))
        has_hand = handedness > 0 or handedness < 0
        same_hand = not (has_hand and "chirality" in prediction) or (chirality >= 0) == (handedness > 0)
        self._right += finite and same_shape and same_hand

    def result(self) -> Accuracy | None:
        """Return the counts; None where no structure has a label and a prediction of ``class_scores``."""
        return Accuracy(self._right, self._total) if self._total else None


def accuracy(samples: Sequence[Sample], predictions: Sequence[Prediction]) -> Accuracy | None:
    """Count structures whose class is recognised, see `AccuracyCount`.

    Args:
        samples: structures with labels.
        predictions: of the same structures.
    """
    count = AccuracyCount()
    for sample, prediction in zip(samples, predictions, strict=True):
        count.add(sample, prediction)
    return count.result()
