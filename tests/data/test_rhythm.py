"""WAAD, FAI and their coupling from series written by hand."""

import numpy as np
import pytest
from headatlas.data.errors import UserError
from headatlas.data.rhythm import followed, peaks, rhythm
from headatlas.data.store import open_store

from .stores import chunk_rows, examples_frame, header

PROBES = ("mean_distance", "windowed_distance", "future_attention", "first_token_mass")
LENGTH = 24


def series(example, layer, head):
    """Head k of layer l looks k + 3 l tokens back; the series of the last and first heads carry the peaks."""
    place = np.arange(LENGTH)
    number = 3 * layer + head
    near = np.full(LENGTH, float(number))
    near[[4, 12]] += 5
    future = np.full(LENGTH, 0.01 * (1 + number))
    future[[5, 12]] += 1
    future[-10:] = np.nan
    return {
        "mean_distance": np.full(LENGTH, float(number)),
        "windowed_distance": near,
        "future_attention": future,
        "first_token_mass": np.where(place == 0, 1.0, 0.5),
    }


@pytest.fixture
def run(tmp_path):
    store = open_store(tmp_path, create=True)
    with store.writer(header(probes=PROBES, examples=6, chunk_size=6)) as writer:
        writer.write_examples(examples_frame(6, tokens=LENGTH))
        lines = [
            {"example": e, "probe": probe, "part": "", "tower": "text", "layer": layer, "head": head,
             "axis": "key" if probe == "future_attention" else "query", "values": values.astype(np.float32)}
            for e in range(6) for layer in range(2) for head in range(3)
            for probe, values in series(e, layer, head).items()
        ]  # fmt: skip
        writer.write_positions(0, {name: [line[name] for line in lines] for name in lines[0]})
        for probe in PROBES:
            writer.write_rows(0, chunk_rows(0, probe, examples=6, size=6), [probe])
        writer.finish("done")
    return store.run()


def expected_shares():
    near, shares = {2, 3, 4, 5, 9, 10, 11, 12}, []
    for size in range(8, 25):
        for shift in (size, -size):
            inside = [cause + shift for cause in (4, 12) if 0 <= cause + shift < LENGTH]
            if inside:
                shares.append(sum(place in near for place in inside) / len(inside))
    return sum(shares) / len(shares)


def test_sets_series_and_coupling(run):
    found = rhythm(run)
    assert (found.local_heads, found.global_heads) == (["L0H0", "L0H1"], ["L1H2", "L1H1"])
    one = found.tokens.query("example == 2").set_index("position")
    assert one.loc[4, "waad"] == pytest.approx(5.5) and one.loc[3, "waad"] == pytest.approx(0.5)
    assert one.loc[5, "fai"] == pytest.approx(1.055) and np.isnan(one.loc[20, "fai"])
    assert one.index[one["waad_peak"]].tolist() == [4, 12]
    assert one.index[one["fai_peak"]].tolist() == [5, 12]
    assert one.loc[[3, 4, 11, 12], "step"].tolist() == pytest.approx([5, 5, 5, 5])
    peak = found.statistics.iloc[0]
    assert (peak["value"], peak["n"]) == (1, 6)
    assert peak["expected"] == pytest.approx(expected_shares())
    assert peak["ci_low"] == pytest.approx(1 - expected_shares())


def test_the_first_token_can_be_left_out(run):
    found = rhythm(run, without_first=True)
    one = found.tokens.query("example == 0").set_index("position")
    # local heads at token 7: (number - 0.5 * 7) / 0.5, numbers 0 and 1
    assert one.loc[7, "waad"] == pytest.approx(((0 - 3.5) / 0.5 + (1 - 3.5) / 0.5) / 2)
    assert np.isnan(one.loc[0, "waad"]) and np.isnan(one.loc[0, "fai"])


def test_the_figure_holds_the_series_and_their_peaks(run):
    from headatlas.dashboards.rhythm import rhythm_figure

    drawn = rhythm_figure(run, 1, scheme="dark")
    assert [len(trace.x) for trace in drawn.data] == [LENGTH, 2, LENGTH, 2]
    assert list(drawn.data[1].x) == [4, 12] and list(drawn.data[3].x) == [5, 12]
    with pytest.raises(UserError, match=r"example 9 is not kept token by token; run .* keeps 0 to 5"):
        rhythm_figure(run, 9)


def test_peaks_and_shifts():
    assert peaks(np.array([0, 5, 0, 0, 1, 0.0])).tolist() == [False, True, False, False, False, False]
    assert not peaks(np.full(5, np.nan)).any()
    cause, effect = np.zeros(10, bool), np.zeros(10, bool)
    assert np.isnan(followed(cause, effect)[0])
    cause[[0, 5]], effect[3] = True, True
    assert followed(cause, effect)[0] == 0.5
    rising = np.arange(100.0)
    rising[[20, 80]] += 30
    assert np.flatnonzero(peaks(rising)).tolist() == [20, 80]  # a drift is no peak, whichever end of the text


def test_what_is_missing_is_said(tmp_path):
    store = open_store(tmp_path, create=True)
    with store.writer(header(examples=4, probes=("entropy",))) as writer:
        writer.write_examples(examples_frame(4))
        writer.write_rows(0, chunk_rows(0, "entropy", examples=4), ["entropy"])
        writer.finish("done")
    with pytest.raises(
        UserError, match="holds no probe mean_distance; the rhythm needs mean_distance, windowed_distance"
    ):
        rhythm(store.run())
