"""What the figures say in numbers: cells, gaps, hover text, limits, outlines, percentiles."""

import dataclasses

import numpy as np
import plotly.graph_objects as go
import pytest
from headatlas.dashboards.cells import colour_limits
from headatlas.dashboards.distribution import distribution_figure, strata_figure
from headatlas.dashboards.evidence import over_strata, values_of
from headatlas.dashboards.figures import atlas, head
from headatlas.dashboards.heatmap import atlas_figure, group_edges
from headatlas.dashboards.multiples import multiples_figure
from headatlas.dashboards.reading import row_in
from headatlas.dashboards.readings import every_reading, per_head, read
from headatlas.dashboards.theme import COLOURS, css_variables
from headatlas.dashboards.wording import span
from headatlas.data.errors import UserError


def trace(figure, meta):
    return next(found for found in figure.data if found.meta == meta)


def test_cells_are_the_table(run):
    reading = read(run, "induction")
    cells = trace(atlas_figure(reading), "cells")
    assert isinstance(cells.z, np.ndarray)
    for row in reading.table.itertuples():
        assert cells.z[row.layer, row.head] == row.value


def test_undefined_cells_are_nan_and_hatched_and_never_zero(run):
    figure = atlas_figure(read(run, "entropy"))
    assert np.isnan(trace(figure, "cells").z[11]).all()
    hatch = trace(figure, "undefined")
    assert sorted(hatch.x) == list(range(12))
    assert hatch.marker.pattern.shape == "/"
    assert "not defined here" in hatch.hovertext[0]


def test_hover_gives_value_interval_n_and_rank(run):
    reading = read(run, "induction")
    row = row_in(reading, "L5H1")
    said = trace(atlas_figure(reading), "cells").hovertext[5, 1]
    assert said.startswith("<b>L5H1</b>")
    assert f"{row['value']:.3f}" in said
    assert f"95 % interval {row['low']:.3f} – {row['high']:.3f}" in said
    assert f"n 16 · rank {int(row['rank'])} of 144" in said


def test_limits_are_what_the_bar_states(run):
    reading = read(run, "induction")
    value = reading.table["value"]
    assert colour_limits(reading, "full")[:2] == (value.min(), value.max())
    assert colour_limits(reading, "robust")[:2] == tuple(np.percentile(value, [2, 98]))
    assert colour_limits(reading, "bounds")[:2] == (0, 1)
    cells = trace(atlas_figure(reading, limits="bounds"), "cells")
    assert (cells.zmin, cells.zmax) == (0, 1)
    said = next(
        note.text for note in atlas_figure(reading, limits="bounds").layout.annotations if note.name == "limits"
    )
    assert said == "0.000 to 1.000 mass: all values the probe can take"


def test_a_narrow_range_is_said_to_be_narrow(run):
    reading = read(run, "induction")
    flat = dataclasses.replace(reading, table=reading.table.assign(value=0.5))
    assert colour_limits(flat) == (0.0, 1.0, "every head has 0.500")
    narrow = dataclasses.replace(reading, table=reading.table.assign(value=0.5 + reading.table["value"] / 1000))
    assert colour_limits(narrow)[2] == "lowest to highest head, under 2% of what the probe can take"
    assert span(0.84261, 0.84283) == "0.8426 to 0.8428"


def test_an_open_bound_ends_at_the_highest_head(run):
    reading = read(run, "entropy")
    assert colour_limits(reading, "bounds")[:2] == (0, reading.table["value"].max())


def test_top_heads_are_framed(run):
    x = trace(atlas_figure(read(run, "induction"), top=4), "top").x
    assert len(x) == 4 * 6
    assert not len(trace(atlas_figure(read(run, "induction")), "top").x or ())


def test_layer_means_stand_beside_the_cells(run):
    reading = read(run, "induction")
    bars = trace(atlas_figure(reading), "marginal")
    assert bars.x[5] == pytest.approx(reading.grid("value")[5].mean())


def test_layer_zero_is_at_the_bottom_unless_flipped(run):
    reading = read(run, "induction")
    assert atlas_figure(reading).layout.yaxis.range == (-0.5, 11.5)
    assert atlas_figure(reading, flip=True).layout.yaxis.range == (11.5, -0.5)


def test_shared_kv_heads_are_separated(run, shared):
    assert group_edges(read(run, "induction")) == []
    assert group_edges(read(shared, "induction")) == [3.5]


def test_all_readings_share_one_figure(run):
    readings = every_reading(run, per_head(run.heads()))
    figure = multiples_figure(readings, selected="L5H1")
    assert [found.name for found in figure.data if found.meta == "cells"] == [r.probe for r in readings]
    assert sum(found.meta == "selected" for found in figure.data) == len(readings)


def test_the_notebook_atlas_says_what_it_shows(run):
    figure = atlas(run, "sink_rate", top=3)
    assert isinstance(figure, go.Figure)
    assert "length 64" in figure.layout.title.text
    assert run.id in figure.layout.title.text


def test_the_notebook_head_shows_every_percentile(run):
    figure = head(run, "L5H1")
    points = figure.data[1]
    shown = dict(zip(points.y, points.x, strict=True))
    assert shown["Induction"] == row_in(read(run, "induction"), "L5H1")["percentile"]
    assert points.y[-1] == "Induction"


def test_the_notebook_head_refuses_a_head_that_is_not_there(run):
    with pytest.raises(UserError, match="expected a head that this run measured, got L99H0"):
        head(run, "L99H0")


def test_distribution_counts_every_example_of_the_stratum(run):
    reading = read(run, "induction", stratum="length=128")
    values = values_of(run, reading, "L5H1")
    assert len(values) == 16
    assert set(values["tokens"]) == {128}
    assert values["value"].is_monotonic_decreasing
    assert values["value"].mean() == pytest.approx(row_in(reading, "L5H1")["value"], abs=1e-6)
    figure = distribution_figure(reading, "L5H1", values["value"].to_numpy(float))
    bars = {found.name: found for found in figure.data}
    assert bars["examples"].y.sum() == 16
    assert bars["heads"].y.sum() == 144


def test_one_colour_table_serves_both_schemes():
    assert COLOURS["light"].keys() == COLOURS["dark"].keys()
    for scheme, colours in COLOURS.items():
        assert f"--ha-page:{colours['page']}" in css_variables()
        for text, ground in (("text", "page"), ("text", "surface"), ("muted", "page"), ("muted", "raised")):
            assert contrast(colours[text], colours[ground]) >= 4.5, (scheme, text, ground)
        for text in ("accent", "good", "busy", "warn", "bad", "selected"):
            assert contrast(colours[text], colours["surface"]) >= 4.5, (scheme, text)
        assert contrast(colours["on-accent"], colours["accent"]) >= 4.5


def contrast(first, second):
    """The contrast ratio of WCAG 2."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_the_course_has_one_point_per_length(run, site):
    from headatlas.dashboards.app import make_app

    with make_app(run.path.parent).server.test_request_context("/"):
        course = over_strata(run, read(run, "induction"), "L5H1")
    assert course["stratum"].tolist() == ["length=64", "length=128", "length=256"]
    figure = strata_figure(course, read(run, "induction"), "L5H1")
    assert list(figure.data[1].y) == course["value"].tolist()
