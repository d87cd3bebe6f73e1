"""The labelled data sets: what a probe is to tell must not be given away by how the prompts are cut."""

from collections import defaultdict

import pytest
from headatlas.data.catalog import load_data
from headatlas.data.errors import DataError
from headatlas.data.vocabulary import Vocabulary


@pytest.mark.parametrize(("name", "labels", "words"), [("topic", 4, 2), ("sentiment", 2, 1)])
def test_prompts_that_say_the_same_are_one_cluster_of_one_label(name, labels, words):
    examples = load_data(f"{name}:shots=0+2", Vocabulary(None, 99), examples=300).examples
    assert len({one.conditions["label"] for one in examples}) == labels
    clusters, of_label = defaultdict(set), defaultdict(set)
    for one in examples:
        assert one.answer == f" {one.conditions['label']}"
        assert one.conditions["shots"] in (0, 2)
        told = one.cluster.split("+")
        assert len(told) == words and all(word in one.text for word in told) and one.conditions["word"] in told
        clusters[one.text].add(one.cluster)
        of_label[one.cluster].add(one.conditions["label"])
    assert all(len(found) == 1 for found in (*clusters.values(), *of_label.values()))


def test_example_k_is_the_same_whatever_the_number():
    few, many = (load_data("topic", Vocabulary(None, 99), examples=count).examples for count in (5, 50))
    assert few == many[:5]


@pytest.mark.parametrize(
    ("spec", "message"), [("topic:frames=near", "held_out, train"), ("sentiment:shots=9", "0 to 8")]
)
def test_what_there_is_not_is_refused(spec, message):
    with pytest.raises(DataError, match=message):
        load_data(spec, Vocabulary(None, 99))
