"""Readings of weights with known answers: built heads, random heads, and the whole matrices written out."""

import numpy as np
import pytest
import torch
from headatlas.data.errors import UserError
from headatlas.probes.catalog import all_readings
from headatlas.probes.composition import composition
from headatlas.probes.folding import head_weights
from headatlas.probes.loading import load
from headatlas.probes.pairs import affinities, baseline, composition_scores, pair_table
from headatlas.probes.weights import HeadWeights
from headatlas.probes.worked_weights import random_weights

from .architectures import ARCHITECTURES
from .tiny import tiny

READINGS = all_readings()


def read(name, weights):
    return READINGS[name].measure(weights)


def built(*, d_model=16, d_head=4, layers=2, heads=4, vocabulary=40, seed=0):
    """Random weights with an embedding that the unembedding reads back."""
    weights = random_weights(
        layers=layers, heads=heads, kv_heads=heads, d_model=d_model, d_head=d_head, vocabulary=vocabulary, seed=seed
    )
    object.__setattr__(weights, "w_u", weights.w_e.T.clone())
    return weights


@pytest.mark.parametrize(("sign", "expected"), [(1, 1.0), (-1, -1.0)])
def test_a_head_that_writes_what_it_reads_copies(sign, expected):
    """W_V W_O is a projection on the directions it reads (or its negative), with W_U = W_E^T."""
    weights = built()
    basis = torch.linalg.qr(weights.w_v[1, 2]).Q
    weights.w_v[1, 2], weights.w_o[1, 2] = basis, sign * basis.T
    scores = read("copying_score", weights)[..., 0]
    assert scores[1, 2].item() == pytest.approx(expected, abs=1e-6)
    assert scores.flatten().abs().argmax() == 1 * 4 + 2


def test_copying_scores_of_random_heads_lie_around_zero():
    """512 heads of 16 dimensions: mean -0.003, standard deviation 0.107, 95 % within 0.21 of 0."""
    weights = random_weights(layers=32, heads=16, kv_heads=16, d_model=64, d_head=16, vocabulary=100)
    scores = read("copying_score", weights).flatten()
    assert abs(scores.mean()) < 0.015
    assert scores.std().item() == pytest.approx(0.107, abs=0.01)
    assert scores.abs().quantile(0.95) < 0.25


def test_eigenvalues_are_those_of_the_whole_circuits():
    """The d_head x d_head products against vocabulary x vocabulary, in numpy."""
    weights = random_weights()
    w = {name: getattr(weights, name).double().numpy() for name in ("w_q", "w_k", "w_v", "w_o", "w_e", "w_u")}
    for layer, head in ((0, 0), (1, 3), (2, 2)):
        kv = head // 2
        whole = {
            "copying_score": w["w_e"] @ w["w_v"][layer, kv] @ w["w_o"][layer, head] @ w["w_u"],
            "matching_score": w["w_e"] @ w["w_q"][layer, head] @ w["w_k"][layer, kv].T @ w["w_e"].T,
        }
        for name, matrix in whole.items():
            eigenvalues = np.linalg.eigvals(matrix)
            expected = eigenvalues.real.sum() / np.abs(eigenvalues).sum()
            assert read(name, weights)[layer, head, 0].item() == pytest.approx(expected, abs=1e-4)
        norms = {
            "ov_norm": w["w_v"][layer, kv] @ w["w_o"][layer, head],
            "qk_norm": w["w_q"][layer, head] @ w["w_k"][layer, kv].T,
        }
        for name, matrix in norms.items():
            assert read(name, weights)[layer, head, 0].item() == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-5)


def test_a_vocabulary_larger_than_a_chunk_gives_the_same():
    from headatlas.probes.library.weights import CHUNK, vocabulary_product

    left, right = torch.randn(3, 2 * CHUNK + 5), torch.randn(2 * CHUNK + 5, 3)
    torch.testing.assert_close(vocabulary_product(left, right), left.double() @ right.double())


def test_a_match_of_equal_tokens_is_one_and_of_opposite_ones_minus_one():
    weights = built()
    weights.w_k[0, 0] = weights.w_q[0, 0]
    weights.w_k[0, 1] = -3 * weights.w_q[0, 1]
    scores = read("matching_score", weights)[0, :, 0]
    assert scores[0].item() == pytest.approx(1, abs=1e-5)
    assert scores[1].item() == pytest.approx(-1, abs=1e-5)


def test_composition_scores_are_those_of_the_whole_matrices():
    weights = random_weights()
    w = {name: getattr(weights, name).double().numpy() for name in ("w_q", "w_k", "w_v", "w_o")}

    def ov(layer, head):
        return w["w_v"][layer, head // 2] @ w["w_o"][layer, head]

    def qk(layer, head):
        return w["w_q"][layer, head] @ w["w_k"][layer, head // 2].T

    for target, head, source, other in ((1, 0, 0, 3), (2, 3, 0, 1), (2, 2, 1, 0)):
        read_by = {"q": qk(target, head), "k": qk(target, head).T, "v": ov(target, head)}
        for kind, matrix in read_by.items():
            product = np.linalg.norm(ov(source, other) @ matrix)
            expected = product / np.linalg.norm(ov(source, other)) / np.linalg.norm(matrix)
            found = composition_scores(weights, kind)[target, head, source, other].item()
            assert found == pytest.approx(expected, rel=1e-4)


def test_only_earlier_layers_compose():
    scores = composition_scores(random_weights(), "k")
    defined = ~scores.isnan()
    assert defined.sum() == 3 * 16  # pairs of layers times pairs of heads
    assert not defined[0].any() and defined[2, :, 0].all() and defined[2, :, 1].all() and not defined[2, :, 2].any()
    assert read("composition", random_weights())[0].isnan().all()


def test_affinity_is_the_mean_squared_cosine_of_principal_angles():
    from scipy.linalg import subspace_angles

    weights = random_weights()
    for kind, matrix in {"q": weights.w_q, "k": weights.k_per_head, "v": weights.v_per_head}.items():
        angles = subspace_angles(matrix[2, 1].double().numpy(), weights.w_o[0, 3].T.double().numpy())
        found = affinities(weights, kind)[2, 1, 0, 3].item()
        assert found == pytest.approx((np.cos(angles) ** 2).mean(), rel=1e-4)


def test_affinity_of_random_heads_is_their_share_of_the_stream():
    weights = random_weights(layers=6, heads=8, kv_heads=8, d_model=64, d_head=16)
    values = affinities(weights, "v")
    assert values[~values.isnan()].mean().item() == pytest.approx(16 / 64, abs=0.005)


def composed(kind):
    """Random heads; L1H2 reads with its queries, keys or values all that L0H3 writes, and nothing else."""
    weights = random_weights(heads=4, kv_heads=4, d_model=32, d_head=4)
    written = torch.linalg.qr(weights.w_o[0, 3].T).Q
    {"q": weights.w_q, "k": weights.w_k, "v": weights.w_v}[kind][1, 2] = written @ torch.randn(4, 4)
    return weights


@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_a_pair_built_to_compose_stands_out(kind):
    torch.manual_seed(0)
    weights = composed(kind)
    pairs = pair_table(weights)
    best = pairs.iloc[0]
    assert (best["kind"], best["source"], best["target"]) == (kind, "L0H3", "L1H2")
    assert best["score"] - best["baseline"] > 0.25
    assert best["affinity"] == pytest.approx(1, abs=1e-5)
    others = pairs.iloc[1:]
    assert (others["score"] - others["baseline"]).max() < 0.15
    values = read("composition", weights)
    assert values[1, 2, "qkv".index(kind)].item() == pytest.approx(best["score"] - best["baseline"], abs=1e-6)


def test_the_baseline_is_the_mean_over_random_heads_of_these_shapes():
    """About 1 / sqrt(d_model), and what unbuilt heads score; circuits of d_model 32 and d_head 8 have about 0.18."""
    weights = random_weights(layers=4, heads=8, kv_heads=8, d_model=32, d_head=8, seed=3)
    for kind in "qkv":
        scores = composition_scores(weights, kind)
        mean = scores[~scores.isnan()].mean().item()
        assert baseline(weights, kind) == pytest.approx(mean, abs=0.004)
        assert baseline(weights, kind) == pytest.approx(32**-0.5, abs=0.006)
    assert baseline(weights, "q") == baseline(weights, "q")
    assert baseline(weights, "q", seed=1) != baseline(weights, "q")


def test_a_centred_stream_has_one_direction_less():
    weights = random_weights(d_model=8, d_head=4)
    centred = HeadWeights(
        **{name: getattr(weights, name) for name in ("w_q", "w_k", "w_v", "w_o", "w_e", "w_u")}, centred=True
    )
    assert baseline(centred, "q") == pytest.approx(7**-0.5, abs=0.03)
    assert baseline(centred, "q") > baseline(weights, "q")


def test_the_table_of_a_model_has_every_pair_the_strongest_first():
    model = tiny()
    pairs = composition(model)
    assert list(pairs) == ["kind", "source", "target", "score", "baseline", "affinity"]
    assert len(pairs) == 3 * 4 * 4
    above = pairs["score"] - pairs["baseline"]
    assert above.is_monotonic_decreasing
    assert set(pairs["source"]) == {f"L0H{head}" for head in range(4)}
    values = read("composition", head_weights(model))
    for index, kind in enumerate("qkv"):
        here = above[(pairs["kind"] == kind) & (pairs["target"] == "L1H2")]
        assert values[1, 2, index].item() == pytest.approx(here.max(), abs=1e-6)


def test_transformer_lens_gives_the_same_scores_for_weights_without_gains():
    """Its composition scores and its affinity are of weights as stored: the same where no norm has a gain."""
    from headatlas.probes.bridge import _bridge
    from transformer_lens.tools.analysis import attention_head_subspace_affinity

    model = tiny()
    weights, theirs = head_weights(model), _bridge(model.network)
    for kind in "qkv":
        scores = theirs.all_composition_scores(kind.upper()).scores  # [source, head, target, head]
        torch.testing.assert_close(composition_scores(weights, kind)[1, :, 0], scores[0, :, 1].T, rtol=1e-4, atol=1e-5)
        near = attention_head_subspace_affinity(theirs, target_role=kind.upper()).normalized[0, :, 1].T
        near = near if kind == "q" else near.repeat_interleave(2, 0)  # theirs are per KV head
        torch.testing.assert_close(affinities(weights, kind)[1, :, 0], near, rtol=1e-4, atol=1e-5)


def test_weights_that_cannot_be_told_give_no_table():
    model = load((ARCHITECTURES["xglm"].build(), None))
    with pytest.raises(UserError, match=r"XGLMForCausalLM: w_q can't be told: W_Q and W_K do not give the logits"):
        composition(model)


def test_a_reading_says_why_it_is_not_for_these_weights():
    own = head_weights(load((ARCHITECTURES["xglm"].build(), None)))
    assert READINGS["copying_score"].why_not(own) is None
    assert (
        READINGS["qk_norm"]
        .why_not(own)
        .startswith("reads w_k, which can't be told: W_Q and W_K do not give the logits")
    )
    normed = head_weights(load((ARCHITECTURES["qwen3"].build(), None)))
    assert READINGS["matching_score"].why_not(normed) is None
    assert READINGS["qk_norm"].why_not(normed) == (
        "is about the size of w_k, which model.layers.0.self_attn.k_norm rescales token by token"
    )


def test_untying_or_shifting_the_unembedding():
    """A constant added to every logit is not seen by the softmax, and not by the copying score either."""
    model = tiny(tie_word_embeddings=False)
    before = read("copying_score", head_weights(model))
    with torch.no_grad():
        model.network.lm_head.weight.add_(torch.randn(32))
    torch.testing.assert_close(read("copying_score", head_weights(model)), before, rtol=1e-3, atol=1e-4)


def test_the_induction_heads_of_pico_lm_copy_and_read_the_previous_token_head():
    """What the README says of the organism that ships with the package."""
    model = load("organism:pico-lm")
    weights = head_weights(model)
    scores = read("copying_score", weights)[..., 0]
    assert scores[1].min().item() == pytest.approx(0.976, abs=0.001)
    assert scores[1].max().item() == pytest.approx(0.995, abs=0.001)
    assert (scores[2:] < 0).float().mean() > 0.9
    pairs = composition(model)
    keys = pairs[pairs["kind"] == "k"].assign(above=pairs["score"] - pairs["baseline"])
    strongest = keys.loc[keys.groupby("target")["above"].idxmax()].set_index("target")
    for head in range(8):
        best = strongest.loc[f"L1H{head}"]
        assert best["source"] == "L0H6"
        assert 0.20 < best["above"] < 0.24
        assert 0.47 < best["affinity"] < 0.51
    assert keys.iloc[0][["source", "target"]].tolist() == ["L2H3", "L3H0"]
    assert read("matching_score", weights)[1].max() < -0.7
