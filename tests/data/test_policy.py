"""Cache policies by hand: from readings, to and from files, and how much of a cache they keep."""

import json

import numpy as np
import pytest
from headatlas.__main__ import main
from headatlas.data.errors import UserError
from headatlas.data.policy import Policy, highest, policy, random_policies
from headatlas.data.policy_file import policy_json, policy_tsv, read_policy, write_policy
from headatlas.data.store import open_store

from .stores import examples_frame, header

SOME = Policy("org/Tiny-LM", ((True, False), (False, False)), 4, 16, "run:sink", "by hand")
# query heads 0 and 1 share KV head 0, 2 and 3 KV head 1; examples [0, 1]
READING = {
    (0, 0): (0.9, 0.1), (0, 1): (0.1, 0.9), (0, 2): (0.6, 0.6), (0, 3): (0.2, 0.2),
    (1, 0): (0.8, 0.8), (1, 1): (0.0, 0.0), (1, 2): (0.3, 0.3), (1, 3): (0.4, 0.4),
}  # fmt: skip


@pytest.fixture
def store(tmp_path):
    """KV heads by max of each example: L0 0.9 0.6, L1 0.8 0.4; by min: 0.1 0.2, 0.0 0.3; `holes` lacks L1's second."""
    store = open_store(tmp_path / "runs", create=True)
    model = {"name": "org/Tiny-LM", "digest": "weights", "layers": 2, "heads": 4, "kv_heads": 2}
    with store.writer(header(model=model, probes=("sink", "holes"), examples=2, chunk_size=2)) as writer:
        writer.write_examples(examples_frame(2))
        rows = [
            {"example": e, "probe": probe, "layer": layer, "head": head, "n_queries": 1,
             "value": np.nan if probe == "holes" and (layer, head // 2) == (1, 1) else values[e]}
            for probe in ("sink", "holes") for (layer, head), values in READING.items() for e in range(2)
        ]  # fmt: skip
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        writer.write_rows(0, columns, ["sink", "holes"])
        writer.finish("done")
    return store


def test_the_share_of_the_cache_by_hand():
    # one full KV head of four: (100 + 3 x 20) / 400; at 20 tokens and fewer nothing is left out
    assert SOME.cache(100) == pytest.approx(160 / 400)
    assert (SOME.cache(20), SOME.cache(1)) == (1, 1)
    assert (SOME.count, SOME.heads, SOME.share, SOME.streaming(0)) == (1, 4, 0.25, [1])
    with pytest.raises(UserError, match="expected a context of 1 token or more; came 0"):
        SOME.cache(0)


def test_a_kv_head_is_kept_for_the_query_head_that_needs_it_most(store):
    found = policy("latest:sink", store=store.path, full=0.5)
    assert found.full == ((True, False), (True, False))
    assert (found.model, found.sinks, found.recent) == ("org/Tiny-LM", 4, 16)
    assert found.source.endswith(":sink") and found.rule == "the highest 2 of 4 KV heads (max over their query heads)"
    assert policy("latest:sink", store=store.path, threshold=0.6).full == ((True, True), (True, False))
    # where high says streaming: the lowest query head of each, 0.1 0.2 and 0.0 0.3
    assert policy("latest:sink", store=store.path, full=0.25, lowest=True).full == ((False, False), (True, False))
    assert policy("latest:sink", store=store.path, threshold=0.1, lowest=True).full == ((True, False), (True, False))
    assert policy("latest:sink", store=store.path, full=0).count == 0
    assert policy("latest:sink", store=store.path, full=1).count == 4


def test_shares_are_cut_at_the_quantile():
    values = np.random.default_rng(1).permutation(24) / 24
    for share in (0.1, 0.125, 0.166, 0.25, 0.5, 0.9):
        assert (highest(values, share) == (values >= np.quantile(values, 1 - share))).all()
    assert highest(values, 0.25).sum() == 6 and highest(values, 0).sum() == 0 and highest(values, 1).sum() == 24
    tied = highest(np.zeros(24), 0.25)
    assert tied.sum() == 6 and (tied == highest(np.zeros(24), 0.25)).all()
    assert not tied[:6].all(), "ties are no reason to prefer early layers"


@pytest.mark.parametrize("name", ["policy.json", "policy.tsv"])
def test_a_policy_comes_back_from_its_file(tmp_path, name):
    path = write_policy(SOME, tmp_path / name)
    if name.endswith("json"):
        assert read_policy(path) == SOME
        assert json.loads(path.read_text())["full"] == [[1, 0], [0, 0]]
        assert read_policy(path, sinks=64, recent=256).cache(1000) == pytest.approx((1000 + 3 * 320) / 4000)
    else:
        assert path.read_text() == policy_tsv(SOME) == "1.0\t0.0\n0.0\t0.0\n"
        assert np.loadtxt(path, delimiter="\t").tolist() == [[1, 0], [0, 0]]  # as DuoAttention reads it
        assert read_policy(path, sinks=4, recent=16).full == SOME.full


def test_gates_are_binarised_at_a_quantile(tmp_path):
    path = tmp_path / "gates.tsv"
    path.write_text("0.1\t0.95\t0.4\n1.2\t-0.1\t0.5\n")
    assert read_policy(path, full=0.5, sinks=4, recent=16).full == ((False, True, False), (True, False, True))
    with pytest.raises(UserError, match=r"gates.tsv holds gates between 0 and 1; .*--full 0.5"):
        read_policy(path, sinks=4, recent=16)
    with pytest.raises(UserError, match="does not say what streaming heads keep; add --sinks and --recent"):
        read_policy(path, full=0.5)


def test_random_policies_are_others_of_the_same_size():
    wide = Policy("", ((True,) * 4, (False,) * 4), 4, 16)
    found = random_policies(wide, 20, seed=0)
    assert len({one.full for one in found} - {wide.full}) == 20 and {one.count for one in found} == {4}
    assert len(random_policies(SOME, 20, seed=0)) == 3, "there are four with one full head"
    assert random_policies(Policy("", ((True, True),), 4, 16), 20, seed=0) == []


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.tsv", "1.0\t0.0\n1.0\n", "expected a matrix, a row for each layer .* came rows of 1, 2"),
        ("a.tsv", "", "came no rows"),
        ("a.tsv", "1.0 0.0\n", "expected numbers with tabs between them"),
        ("a.tsv", "nan\t0.0\n", "expected gates from 0 to 1; came nan"),
        ("a.json", "[1", "expected a policy as `headatlas policy --out` writes it"),
        ("a.json", '{"full": [[1, 0], [1]], "sinks": 4, "recent": 16}', "expected a policy"),
        ("a.json", '{"full": [[1, 2]], "sinks": 4, "recent": 16}', "expected rows `full` of as many 0 and 1 each"),
        ("a.json", '{"full": [[1, 0]], "sinks": 4, "recent": 0}', "recent of 1 or more; came 4 and 0"),
        ("a.txt", "", "expected a name that ends in .json or .tsv"),
    ],
)
def test_a_file_that_is_no_policy_says_why(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        read_policy(tmp_path / name, sinks=None if "json" in name else 4, recent=None if "json" in name else 16)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("latest:sink", "--full", "1.5"), "expected a share of KV heads from 0 to 1; came 1.5"),
        (("latest:sink", "--full", "nan"), "expected a share of KV heads from 0 to 1; came nan"),
        (("latest:sink",), "expected either a share of KV heads to keep full (--full 0.25) or a value"),
        (("latest:sink", "--full", "0.5", "--threshold", "1"), "not allowed with argument --full"),
        (("latest:holes", "--full", "0.5"), "has no value for 1 of 4 KV heads (L1H1), so it can't decide"),
        (("latest:sinks", "--full", "0.5"), "holds no probe 'sinks'. Did you mean 'sink'?"),
        (("gone.json",), "policy gone.json cannot be read: No such file"),
    ],
)
def test_mistakes_are_one_line(store, capsys, words, said):
    assert main(["policy", *words, "--store", str(store.path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err


def test_the_verb_prints_and_writes(store, tmp_path, capsys):
    out = tmp_path / "policy.json"
    words = ["policy", "latest:sink", "--full", "0.5", "--store", str(store.path), "--out", str(out)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert [line.split() for line in printed.splitlines()[2:4]] == [["L0", "0", "1"], ["L1", "0", "1"]]
    assert "2 of 4 KV heads are full (0.5); the others keep 4 + 16 tokens" in printed
    assert "0.510 at 1,024" in printed
    assert main([*words, "--json"]) == 0
    assert capsys.readouterr().out == out.read_text() == policy_json(read_policy(out))
    assert main(["policy", str(out), "--out", str(tmp_path / "policy.tsv")]) == 0
    assert (tmp_path / "policy.tsv").read_text() == "1.0\t0.0\n1.0\t0.0\n"
