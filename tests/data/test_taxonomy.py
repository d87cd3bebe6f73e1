"""Groups of heads against planted ones, and noise that must not look stable."""

import json

import numpy as np
import pandas as pd
import pytest
from headatlas.__main__ import main
from headatlas.data.errors import UserError
from headatlas.data.head_features import head_features
from headatlas.data.store import open_store
from headatlas.data.taxonomy import taxonomy
from sklearn.metrics import adjusted_rand_score

from .stores import examples_frame, header

LAYERS, HEADS, EXAMPLES = 4, 6, 24


def stored(folder, values, *, families=None, examples=EXAMPLES, name="repeats"):
    """A run of probes -> values [example, head]."""
    cards = {probe: {"version": 1, "family": (families or {}).get(probe, probe)} for probe in values}
    plain = header(examples=examples, chunk_size=examples, probes=())
    made = plain | {"probes": cards, "data": plain["data"] | {"name": name, "digest": name}}
    with open_store(folder, create=True).writer(made) as writer:
        writer.write_examples(examples_frame(examples))
        example, head = np.indices((examples, LAYERS * HEADS)).reshape(2, -1)
        tables = [
            pd.DataFrame({"example": example, "probe": probe, "layer": head // HEADS, "head": head % HEADS,
                          "value": grid.ravel(), "n_queries": 9})
            for probe, grid in values.items()
        ]  # fmt: skip
        writer.write_rows(0, pd.concat(tables), list(values))
        writer.finish("done")
        return writer.run


GROUPS = np.arange(LAYERS * HEADS) % 3


def noise(seed, *, examples=EXAMPLES):
    return np.random.default_rng(seed).normal(size=(examples, LAYERS * HEADS))


def planted():
    levels = {"one": (5, 0, 0), "two": (0, 5, 0), "three": (0, 0, 5)}
    return {
        probe: np.array(level, float)[GROUPS] + 0.3 * noise(seed) for seed, (probe, level) in enumerate(levels.items())
    }


@pytest.mark.parametrize("method", ["agglomerative", "kmeans"])
def test_three_planted_groups_are_found_and_named(tmp_path, method):
    found = taxonomy(stored(tmp_path, planted()), method=method, draws=20)
    assert adjusted_rand_score(GROUPS, found.heads["cluster"]) == 1.0
    assert list(found.clusters["size"]) == [8, 8, 8]
    assert found.clusters["name"][0].startswith("high one")
    assert found.clusters["members"][0][:2] == ["L0H0", "L0H3"]
    assert found.stability.mean == 1.0 and found.stability.n == 20
    assert found.silhouette > max(0.9, found.null_silhouette.high)
    assert "further apart than shuffled readings" in found.verdict


def test_noise_is_not_stable_and_says_so(tmp_path):
    run = stored(tmp_path, {f"noise{k}": noise(k) for k in range(6)})
    for clusters in ("auto", 3):
        found = taxonomy(run, clusters=clusters, draws=60)
        assert abs(found.stability.mean) < 0.1
        assert found.stability.low <= 0
        assert found.verdict.startswith("not stable")


def test_a_cloud_that_repeats_is_not_taken_for_groups(tmp_path):
    """Readings that are reliable and independent: their pieces repeat, and shuffled ones do as much."""
    values = {f"cloud{k}": noise(100 + k)[:1] + 0.01 * noise(k) for k in range(4)}
    found = taxonomy(stored(tmp_path, values), draws=40)
    assert found.stability.mean > 0.8
    assert found.verdict == "the groups cut a cloud into pieces: shuffled readings are as stable and as far apart"


def test_a_family_of_many_readings_has_one_voice(tmp_path):
    """Nine copies of one reading against one that tells two groups apart."""
    halves = np.arange(LAYERS * HEADS) % 2
    copies = {f"copy{k}": noise(7, examples=1) + 0.01 * noise(k) for k in range(9)}
    values = copies | {"telling": 8.0 * halves + 0.1 * noise(50)}
    run = stored(tmp_path, values, families=dict.fromkeys(copies, "copies"))
    held = head_features([run])
    assert held.weights[:9] == pytest.approx(1 / 3) and held.weights[9] == 1.0
    assert adjusted_rand_score(halves, taxonomy(run, clusters=2, draws=5).heads["cluster"]) == 1.0


def test_undefined_values_are_the_median_and_are_named(tmp_path):
    values = planted()
    values["one"][:, 4] = np.nan
    values |= {"constant": np.ones((EXAMPLES, LAYERS * HEADS)), "absent": np.full((EXAMPLES, LAYERS * HEADS), np.nan)}
    held = head_features([stored(tmp_path, values)])
    assert held.imputed == {"one": 1}
    assert held.dropped == {"constant": "the same for every head", "absent": "undefined for 24 of 24 heads"}
    raw = np.append(np.delete(values["one"], 4, axis=1).mean(0), np.nan)[[*range(4), -1, *range(4, LAYERS * HEADS - 1)]]
    column = held.matrix(held.whole)[:, 0]
    filled = np.where(np.isnan(raw), np.nanmedian(raw), raw)
    np.testing.assert_allclose(column, (filled - filled.mean()) / filled.std(), atol=1e-6)


def test_few_clusters_of_examples_leave_the_stability_unknown(tmp_path):
    found = taxonomy(stored(tmp_path, {name: grid[:4] for name, grid in planted().items()}, examples=4), draws=5)
    assert np.isnan(found.stability.mean) and found.stability.n == 0
    assert found.verdict.startswith("stability unknown: expected 5 clusters of examples")


def test_runs_of_one_model_are_read_together(tmp_path):
    grids = planted()
    one = stored(tmp_path, {"one": grids["one"]})
    two = stored(tmp_path, {"two": grids["two"], "three": grids["three"]}, name="text")
    found = taxonomy([one, two], draws=10)
    assert [feature.name for feature in found.features.features] == ["repeats:one", "text:two", "text:three"]
    assert adjusted_rand_score(GROUPS, found.heads["cluster"]) == 1.0


def test_the_verb_prints_groups_and_refuses_mistakes(tmp_path, capsys):
    run = stored(tmp_path, planted())
    place = [run.id, "--store", str(tmp_path), "--draws", "5"]
    assert main(["taxonomy", *place, "--heads"]) == 0
    said = capsys.readouterr().out
    assert "24 heads, 3 readings of 3 families" in said and "stability 1.00 [1.00, 1.00] (n 5)" in said
    assert main(["taxonomy", *place, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["heads"]) == 24
    for words, message in (
        (["--clusters", "many"], "expected a whole number or auto; came 'many'"),
        (["--clusters", "24"], "expected 2 to 23 clusters for 24 different heads; came 24"),
        (["--stratum", "length=9"], "has no stratum 'length=9'"),
    ):
        assert main(["taxonomy", *place, *words]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_nothing_to_group_by_is_said(tmp_path):
    run = stored(tmp_path, {"constant": np.ones((EXAMPLES, LAYERS * HEADS))})
    with pytest.raises(UserError, match="no reading differs between heads"):
        taxonomy(run)
