"""Query heads of one KV head as one."""

import pytest
from headatlas.__main__ import main
from headatlas.data.errors import StoreError
from headatlas.probes.measure import measure

from .tiny import tiny


def test_the_max_of_each_pair_of_query_heads(tmp_path):
    run = measure(tiny(), "entropy", "random:length=30", examples=6, store=tmp_path)
    rows = run.rows("entropy")
    for together in ("max", "mean"):
        found = run.kv_heads("entropy", together=together)
        assert list(found["head"]) == [0, 1, 0, 1] and list(found["layer"]) == [0, 0, 1, 1]
        for line in found.itertuples():
            mine = rows[(rows["layer"] == line.layer) & (rows["head"] // 2 == line.head)]
            by_hand = mine.groupby("example")["value"].agg(together).mean()
            assert line.mean == pytest.approx(by_hand, rel=1e-6) and line.ci_low < line.mean < line.ci_high


def test_a_kv_head_has_a_name_of_its_own(tmp_path, capsys):
    run = measure(tiny(), "entropy", "random:length=30", examples=2, store=tmp_path)
    main(["show", run.id, "--store", str(tmp_path), "--kv-heads", "max"])
    said = capsys.readouterr().out
    assert "L1KV0" in said and "L1H0" not in said
    assert "fewer than 5 examples have no interval" in said


def test_another_way_to_fold_is_refused(tmp_path):
    run = measure(tiny(), "entropy", "random:length=30", examples=2, store=tmp_path)
    with pytest.raises(StoreError, match="expected query heads together by max or mean; came 'sum'"):
        run.kv_heads("entropy", together="sum")
