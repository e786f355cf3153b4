"""GLUE's metrics as scikit-learn and SciPy compute them.

    python metrics.py               # rewrites metrics.json beside this file

`metrics.json` lists cases `{name, metric, targets, predictions, value}`. Values are fractions (T5 and GLUE's tables
multiply by 100); `null` stands for NaN. A class of -1 is an output that is none of the task's labels.

Conventions, all of them T5's (`t5/evaluation/metrics.py` of google-research/text-to-text-transfer-transformer), and
for valid predictions also Hugging Face's `evaluate`, which calls the same functions:

- `accuracy`: -1 never equals a target.
- `f1`: of class 1; a prediction that is neither 0 nor 1 counts as the opposite of its target. Without a true
  positive it is 0, also where it is undefined (no class 1 among targets and predictions).
- `matthews`: -1 is a class like any other, so with invalid predictions this is the multi-class coefficient
  (Gorodkin's R_K). If the targets, or the predictions, are all of one class it is 0.
- `pearson`, `spearman`: NaN if the targets or the predictions are constant. Ties share their mean rank. An output
  that is not a number counts as -1.0.
"""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import scipy.stats
import sklearn.metrics

HERE = Path(__file__).resolve().parent


def f1_with_invalid(targets, predictions):
    targets, predictions = np.array(targets), np.array(predictions)
    invalid = (predictions != 0) & (predictions != 1)
    return sklearn.metrics.f1_score(targets, np.where(invalid, 1 - targets, predictions), zero_division=0.0)


METRICS = {
    "accuracy": sklearn.metrics.accuracy_score,
    "f1": f1_with_invalid,
    "matthews": sklearn.metrics.matthews_corrcoef,
    "pearson": lambda targets, predictions: scipy.stats.pearsonr(targets, predictions)[0],
    "spearman": lambda targets, predictions: scipy.stats.spearmanr(targets, predictions)[0],
}
CLASSIFICATION = ["accuracy", "f1", "matthews"]
REGRESSION = ["pearson", "spearman"]


def inputs():
    """(name, metrics, targets, predictions)"""
    random = np.random.default_rng(5)
    binary = [
        ("mixed", [0, 1, 1, 0, 1, 0, 1, 1], [0, 1, 0, 1, 1, 0, 1, 0]),
        ("all right", [0, 1, 1, 0], [0, 1, 1, 0]),
        ("all wrong", [0, 1, 1, 0], [1, 0, 0, 1]),
        ("some invalid", [0, 1, 1, 0, 1, 0, 1, 1], [0, 1, -1, -1, 1, 0, 1, 0]),
        ("all invalid", [0, 1, 1, 0, 1], [-1, -1, -1, -1, -1]),
        ("targets of class 0 only", [0, 0, 0, 0], [0, 1, 0, 0]),
        ("targets of class 1 only", [1, 1, 1, 1], [0, 1, 1, 1]),
        ("predictions of class 0 only", [0, 1, 1, 0], [0, 0, 0, 0]),
        ("predictions of class 1 only", [0, 1, 1, 0], [1, 1, 1, 1]),
        ("class 0 only", [0, 0, 0], [0, 0, 0]),
        ("class 1 only", [1, 1, 1], [1, 1, 1]),
        ("class 0 only, one invalid", [0, 0, 0], [0, -1, 0]),
        ("class 1 only, one invalid", [1, 1, 1], [1, -1, 1]),
        ("one example, right", [1], [1]),
        ("one example, invalid", [1], [-1]),
    ]
    for index in range(4):
        targets = (random.random(50) < 0.3 + 0.15 * index).astype(int)
        right = random.random(50) < 0.75
        predictions = np.where(right, targets, 1 - targets)
        if index % 2:
            predictions[random.random(50) < 0.2] = -1
        binary.append((f"random {index}", targets.tolist(), predictions.tolist()))
    for name, targets, predictions in binary:
        yield name, CLASSIFICATION, targets, predictions

    targets = random.integers(0, 3, 50)
    predictions = np.where(random.random(50) < 0.6, targets, random.integers(-1, 3, 50))
    yield "three classes and invalid", ["accuracy", "matthews"], targets.tolist(), predictions.tolist()

    scores = [
        ("without ties", [0.0, 1.2, 2.4, 3.8, 5.0], [0.4, 1.0, 3.0, 2.8, 4.6]),
        ("with ties", [1.0, 1.0, 2.0, 3.0, 3.0, 3.0], [0.2, 0.4, 0.4, 5.0, 4.8, 4.8]),
        ("monotonic, not linear", [0.0, 0.2, 0.4, 3.0, 5.0], [0.0, 2.0, 2.2, 2.4, 2.6]),
        ("reversed", [0.0, 1.0, 2.0, 4.0], [4.0, 3.0, 2.0, 0.0]),
        ("some invalid", [0.0, 1.2, 2.4, 3.8, 5.0, 4.0], [0.4, -1.0, 3.0, -1.0, 4.6, 3.8]),
        ("all invalid", [0.0, 1.2, 2.4], [-1.0, -1.0, -1.0]),
        ("constant predictions", [0.0, 1.2, 2.4, 3.8], [2.6, 2.6, 2.6, 2.6]),
        ("constant targets", [2.6, 2.6, 2.6, 2.6], [0.0, 1.2, 2.4, 3.8]),
        ("both constant", [1.0, 1.0, 1.0], [3.0, 3.0, 3.0]),
        ("two examples", [1.0, 3.0], [2.0, 2.4]),
    ]
    for index in range(4):
        # STS-B's labels: multiples of 0.2 from 0 to 5.
        label = lambda value: (np.round(np.clip(value, 0, 5) * 5) / 5).round(1)  # noqa: E731
        truth = random.uniform(0, 5, 50)
        predictions = label(truth + random.normal(0, 0.5 * (index + 1), 50))
        if index % 2:
            predictions[random.random(50) < 0.1] = -1.0
        scores.append((f"random {index}", label(truth).tolist(), predictions.tolist()))
    for name, targets, predictions in scores:
        yield name, REGRESSION, targets, predictions


def main():
    warnings.simplefilter("ignore")  # undefined values are part of what is recorded
    cases = []
    for name, metrics, targets, predictions in inputs():
        for metric in metrics:
            value = float(METRICS[metric](targets, predictions))
            cases.append(
                dict(
                    name=name,
                    metric=metric,
                    targets=targets,
                    predictions=predictions,
                    value=None if math.isnan(value) else value,
                )
            )
    lines = ",\n".join(json.dumps(case, allow_nan=False) for case in cases)
    (HERE / "metrics.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
