"""95 % confidence intervals as SciPy's percentile bootstrap computes them.

    python bootstrap.py               # rewrites bootstrap.json beside this file

`bootstrap.json` lists cases `{task, targets, predictions, intervals}`: classes (-1 is an invalid output) or scores, and the
interval of each of the task's metrics as a fraction, in the order of the paper's Table 5.
"""

import json
from pathlib import Path

import numpy as np
import scipy.stats

from metrics import METRICS

HERE = Path(__file__).resolve().parent
TASKS = {"cola": ["matthews"], "mrpc": ["f1", "accuracy"], "stsb": ["pearson", "spearman"]}


def inputs():
    random = np.random.default_rng(7)
    for task, share, right in [("cola", 0.7, 0.8), ("mrpc", 0.6, 0.7)]:
        targets = (random.random(200) < share).astype(int)
        predictions = np.where(random.random(200) < right, targets, 1 - targets)
        predictions[random.random(200) < 0.05] = -1
        yield task, targets, predictions
    truth = random.uniform(0, 5, 150)
    label = lambda value: (np.round(np.clip(value, 0, 5) * 5) / 5).round(1)  # noqa: E731
    yield "stsb", label(truth), label(truth + random.normal(0, 1.5, 150))


def interval(metric, targets, predictions):
    result = scipy.stats.bootstrap(
        (targets, predictions),
        lambda targets, predictions: METRICS[metric](targets, predictions),
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=5000,
        rng=np.random.default_rng(1),
    )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]


def main():
    cases = []
    for task, targets, predictions in inputs():
        intervals = [interval(metric, targets, predictions) for metric in TASKS[task]]
        case = dict(task=task, targets=targets.tolist(), predictions=predictions.tolist(), intervals=intervals)
        cases.append(json.dumps(case, allow_nan=False))
    (HERE / "bootstrap.json").write_text("[\n" + ",\n".join(cases) + "\n]\n")


if __name__ == "__main__":
    main()
