"""Whether a label can be read off a vector by a straight cut: cross-validated logistic regression with a control task.

    accuracy_e    = 1 where the classifier, trained without the cluster of example e, says its label, else 0
    control_e     = the same for labels drawn at random, one for each type; the mean over several draws
    selectivity_e = accuracy_e - control_e
    baseline_e    = 1 where e has the most frequent label of all

Source: Hewitt and Liang, Designing and Interpreting Probes with Control Tasks, section 2: a control label belongs to a
type and is drawn from the labels as often as they occur. A type is a cluster unless a condition says otherwise. Whole
clusters are left out, so a control label of a cluster is never seen in training and its accuracy is what guessing
gives, or a little less (what is left out is rarer in the rest). With types that recur in many clusters, such as words,
it shows how much the probe can learn by heart, which is what the paper's selectivity is about.

Not covered: how accuracy varies with the training set or with other folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.errors import UserError

PARTS = ("accuracy", "control", "selectivity", "baseline")
CONTROLS = 5
"""Draws of the control labels; the paper has one, which few clusters make noisy."""
PENALTY = 1.0
"""Inverse strength of the L2 penalty, scikit-learn's default."""
ITERATIONS = 2000


@dataclass(frozen=True)
class Task:
    """What is to be told, labels as numbers, and which examples are left out together."""

    labels: np.ndarray
    """int [example]."""
    controls: np.ndarray
    """int [draw, example]."""
    folds: list[tuple[np.ndarray, np.ndarray]]
    """(train, test) numbers of examples; no cluster is in both, each example is once in a test."""

    @property
    def baseline(self) -> np.ndarray:
        """1 where an example has the most frequent label, float [example]."""
        return (self.labels == np.bincount(self.labels).argmax()).astype(float)


def make_task(
    labels: Sequence[str],
    clusters: Sequence[str],
    types: Sequence[str] | None = None,
    *,
    folds: int = 5,
    controls: int = CONTROLS,
    seed: int = 0,
) -> Task:
    """The task of telling `labels`, cut into stratified folds of whole clusters; what can't be told is refused."""
    names, numbers = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    groups = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)[1]
    if len(names) < 2:
        raise UserError(f"expected two labels or more to tell apart; every example has {str(names[0])!r}")
    count = int(groups.max()) + 1
    if count < folds:
        raise UserError(
            f"expected {folds} clusters of examples or more, one for each fold; came {count}. "
            "Give more examples, or fewer folds with --folds"
        )
    lonely = [str(name) for index, name in enumerate(names) if len(set(groups[numbers == index])) < 2]
    if lonely:
        raise UserError(
            f"label {lonely[0]!r} is in one cluster of examples only, so it can't be both learned and tested; "
            f"{len(lonely)} of {len(names)} labels are so. Give more examples, or a coarser label"
        )
    kinds = groups if types is None else np.unique(np.asarray(types, dtype=str), return_inverse=True)[1]
    drawn = np.stack([control_labels(numbers, kinds, seed=(seed, draw)) for draw in range(controls)])
    return Task(numbers, drawn, _folds(numbers, groups, folds, seed))


def control_labels(labels: np.ndarray, types: np.ndarray, *, seed: int | tuple[int, ...] = 0) -> np.ndarray:
    """One label for each type, drawn from `labels` as often as they occur; drawn again while all are the same.

    >>> control_labels(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])).tolist()
    [1, 1, 0, 0]
    """
    count = int(types.max()) + 1
    if count < 2:
        raise UserError("the control task draws a label for each type; expected two types or more, came one")
    generator = np.random.default_rng(seed)
    drawn = generator.choice(labels, size=count)
    while len(set(drawn.tolist())) < 2:
        drawn = generator.choice(labels, size=count)
    return drawn[types]


def _folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    rarest = int(np.bincount(labels).min())
    if rarest < folds:
        raise UserError(
            f"expected {folds} examples or more of each label, one for each fold; the rarest has {rarest}. "
            "Give more examples, or fewer folds with --folds"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        return [(train, test) for train, test in splitter.split(labels, labels, groups) if len(test)]


def read_linearly(features: np.ndarray, task: Task, *, penalty: float = PENALTY) -> np.ndarray:
    """The parts of the reading, float [example, part], of features [example, width]; NaN where they are undefined."""
    if not np.isfinite(features).all():
        return np.full((len(features), len(PARTS)), np.nan)
    accuracy, *controls = (
        (out_of_fold(features, labels, task.folds, penalty=penalty) == labels).astype(float)
        for labels in (task.labels, *task.controls)
    )
    control = np.mean(controls, axis=0)
    return np.stack([accuracy, control, accuracy - control, task.baseline], axis=1)


def out_of_fold(
    features: np.ndarray, labels: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]], *, penalty: float = PENALTY
) -> np.ndarray:
    """What is said of each example by the classifier that was trained without its fold, int [example]."""
    said = np.full(len(labels), -1)
    for train, test in folds:
        said[test] = _said(features[train], labels[train], features[test], penalty)
    return said


def _said(known: np.ndarray, labels: np.ndarray, asked: np.ndarray, penalty: float) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(set(labels.tolist())) == 1:  # nothing to learn: the one label there is
        return np.full(len(asked), labels[0])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=ITERATIONS))
    return classifier.fit(known, labels).predict(asked)
