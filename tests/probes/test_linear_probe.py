"""Linear probes against features made by hand: a head that carries the label, heads of noise, and what must be refused."""

import numpy as np
import pytest
from headatlas.data.errors import UserError
from headatlas.data.intervals import bootstrap_mean
from headatlas.probes.learn import tables_of
from headatlas.probes.linear_probe import PARTS, control_labels, make_task, out_of_fold, read_linearly

ACCURACY, CONTROL, SELECTIVITY, BASELINE = range(4)


def planted(examples=120, classes=3, per_cluster=2, width=6, seed=0):
    """Labels, clusters, and vectors [example, head, width]: head 0 holds the label on one axis each, 1 to 3 noise."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(examples // per_cluster) % classes, per_cluster)
    clusters = np.repeat(np.arange(examples // per_cluster), per_cluster)
    vectors = generator.normal(size=(examples, 4, width))
    vectors[:, 0, :classes] = 4 * np.eye(classes)[labels] + 0.1 * vectors[:, 0, :classes]
    return [f"label {one}" for one in labels], [f"c{one}" for one in clusters], vectors


def test_the_head_that_carries_the_label_is_read_and_the_others_are_not():
    labels, clusters, vectors = planted()
    task = make_task(labels, clusters)
    carrying = read_linearly(vectors[:, 0], task)
    assert carrying[:, ACCURACY].mean() == 1.0
    assert carrying[:, BASELINE].mean() == pytest.approx(1 / 3)
    assert carrying[:, CONTROL].mean() == pytest.approx(1 / 3, abs=0.12)
    assert carrying[:, SELECTIVITY].mean() > 0.5
    assert (carrying[:, SELECTIVITY] == carrying[:, ACCURACY] - carrying[:, CONTROL]).all()
    for head in (1, 2, 3):
        read = read_linearly(vectors[:, head], task)
        low, high = bootstrap_mean(read[:, [ACCURACY, SELECTIVITY]], clusters)
        assert low[0] < 1 / 3 < high[0]
        assert low[1] < 0 < high[1]


def test_no_cluster_is_ever_on_both_sides():
    """Each cluster has a key of its own in its vectors: a probe that saw the cluster would be right always."""
    generator = np.random.default_rng(1)
    clusters = np.repeat(np.arange(40), 3)
    labels = np.repeat(generator.permutation(np.arange(40) % 2), 3)
    keys = np.eye(40)[clusters]
    task = make_task([str(one) for one in labels], [str(one) for one in clusters])
    tested = np.concatenate([test for _, test in task.folds])
    assert sorted(tested) == list(range(120))
    for train, test in task.folds:
        assert not set(clusters[train]) & set(clusters[test])
    leaky = [(np.arange(120)[np.arange(120) % 3 != k], np.arange(120)[np.arange(120) % 3 == k]) for k in range(3)]
    assert (out_of_fold(keys, labels, leaky) == labels).mean() == 1.0
    assert (out_of_fold(keys, labels, task.folds) == labels).mean() < 0.7


def test_control_labels_are_one_for_each_type_and_repeat_with_the_seed():
    labels, clusters, _ = planted()
    task = make_task(labels, clusters)
    for control in task.controls:
        for cluster in set(clusters):
            assert len({one for one, its in zip(control, clusters) if its == cluster}) == 1
    assert len({tuple(control) for control in task.controls}) == 5
    assert (make_task(labels, clusters).controls == task.controls).all()
    assert (make_task(labels, clusters, seed=1).controls != task.controls).any()


def test_control_of_words_that_recur_is_learnt_by_heart():
    """Hewitt and Liang's case: the vector says which word it is, so any labelling of the words can be learnt."""
    words = np.tile(np.arange(6), 40)
    labels = [str(word % 2) for word in words]
    task = make_task(labels, [str(k) for k in range(240)], [str(word) for word in words])
    read = read_linearly(np.eye(6)[words], task)
    assert read[:, ACCURACY].mean() == 1.0
    assert read[:, CONTROL].mean() == 1.0
    assert read[:, SELECTIVITY].mean() == 0.0


def test_control_labels_are_never_all_the_same():
    assert all(len(set(control_labels(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), seed=k))) == 2 for k in range(20))


def test_an_undefined_vector_leaves_the_head_undefined():
    labels, clusters, vectors = planted()
    vectors[3, 1, 0] = np.nan
    assert np.isnan(read_linearly(vectors[:, 1], make_task(labels, clusters))).all()


def test_rows_are_of_each_head_and_of_the_layer_as_a_whole():
    labels, clusters, vectors = planted(examples=60)
    table = next(iter_tables := tables_of({("text", 2): vectors[:, :2]}, make_task(labels, clusters, controls=1)))
    assert set(table["part"]) == set(PARTS) and set(table["layer"]) == {2} and len(table) == 60 * 4
    *_, whole = [table, *iter_tables]
    assert whole["head"].isna().all()
    assert whole.loc[whole["part"] == "accuracy", "value"].mean() == 1.0


@pytest.mark.parametrize(
    ("labels", "clusters", "message"),
    [
        (["a"] * 10, range(10), "expected two labels or more to tell apart; every example has 'a'"),
        (["a", "b"] * 5, [0, 0, 1, 1, 2, 2, 3, 3, 3, 3], "expected 5 clusters .* one for each fold; came 4"),
        (["a"] * 9 + ["b"], range(10), "label 'b' is in one cluster of examples only"),
        (["a"] * 8 + ["b"] * 2, range(10), "5 examples or more of each label, .* the rarest has 2"),
    ],
)
def test_what_cannot_be_told_is_refused_in_one_line(labels, clusters, message):
    with pytest.raises(UserError, match=message) as refused:
        make_task(labels, [str(one) for one in clusters])
    assert refused.value.exit_code == 2 and "\n" not in str(refused.value)
