"""Every statistic of tiny random models of many architectures equals the one of the model's own eager weights."""

import dataclasses

import pytest
import torch
from headatlas.kernels.inputs import AttentionInputs, Visibility
from headatlas.kernels.reference import statistics_of_weights
from headatlas.kernels.stats import split_name
from headatlas.probes.batching import batch
from headatlas.probes.batching import model_inputs as forward_inputs
from headatlas.probes.forward import observe
from headatlas.probes.loading import load
from headatlas.probes.targets import find_target

from .architectures import ARCHITECTURES, model_inputs
from .oracle import eager_weights, output_attentions

NEEDS = frozenset(
    "visible_keys max_weight row_mass entropy sum_squares logit_sum logit_sum_squares mean_distance mean_square_distance "
    "clipped_distance:10 window_mass:4 duplicate_mass induction_mass duplicate_keys induction_keys weight_at:first "
    "weight_at:previous group_mass received received_by_group future_average:1:5 pooled_mean pooled_max".split()
)
RELATIVE = {"mean_distance", "mean_square_distance", "clipped_distance", "logit_sum", "logit_sum_squares"}
MATERIALISED = {"falcon", "bloom", "gptj", "mpt", "deberta", "mpnet", "gpt_neo", "codegen", "xglm", "xlnet"}


def labelled(kind, left):
    """The batch of one model kind, with three made-up groups on its tokens."""
    inputs = model_inputs(kind, left=left)
    ids, real = inputs.pop("input_ids", None), inputs.pop("attention_mask", None)
    return ids, real, None if ids is None else (torch.arange(ids.shape[1])[None] + ids) % 3, inputs


def expected_stats(stats, weights, known):
    """The float64 statistics of eager weights, with the labels the call should carry."""
    batch_size, heads, queries, keys = weights.shape
    aligned = known.input_ids is not None and stats.query_groups is not None
    view = Visibility(after=0, query_mask=stats.real_queries)
    tokens = known.input_ids if aligned else known.extra.get("decoder_input_ids")
    real = torch.ones(batch_size, keys, dtype=torch.bool)
    if stats.key_groups is not None and known.query_mask is not None:
        real = known.query_mask
    targets = {name: find_target(name)(real) for name in ("first", "previous")}
    if stats.call.cross:
        targets = {"first": targets["first"][:, :1].expand(-1, queries)}
    inputs = AttentionInputs(
        torch.zeros(batch_size, heads, queries, 1), torch.zeros(batch_size, heads, keys, 1), visibility=view,
        key_groups=stats.key_groups, query_groups=stats.query_groups, group_count=len(stats.group_names),
        query_tokens=tokens, key_tokens=tokens, targets=targets,
    )  # fmt: skip
    visible = weights > 0
    logits = weights.log()
    needs = frozenset(stats) - {"logsumexp", "max_logit"}
    return statistics_of_weights(inputs, needs, weights, logits, logits.logsumexp(-1), visible)


def assert_equal(stats, weights, known):
    real = torch.ones(weights.shape[0], weights.shape[2], dtype=torch.bool)
    if stats.real_queries is not None:
        real = stats.real_queries
    weights = weights * real[:, None, :, None]
    for name, want in expected_stats(stats, weights, known).items():
        have = stats[name].to(want.dtype)
        if want.dim() >= 3 and want.shape[2] == real.shape[1] and split_name(name)[0] not in (
            "received", "received_by_group", "future_average", "pooled_mean", "pooled_max"
        ):  # fmt: skip
            picked = real[:, None].expand(want.shape[:3])
            have, want = have[picked], want[picked]
        limit = {"rtol": 1e-5, "atol": 3e-6} if split_name(name)[0] in RELATIVE else {"rtol": 1e-5, "atol": 1e-5}
        where = f"{stats.call.module} layer {stats.layer} {name}"
        torch.testing.assert_close(have, want, **limit, msg=lambda text, where=where: f"{where}: {text}")


SIDES = [(name, "right") for name in ARCHITECTURES]
SIDES += [(name, "left") for name, one in ARCHITECTURES.items() if one.inputs in ("text", "masked")]


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_statistics_equal_those_of_eager_weights(name, side):
    architecture = ARCHITECTURES[name]
    ids, real, groups, extra = labelled(architecture.inputs, side == "left")
    network = architecture.build()
    model = load((network, None))
    known = batch(model, ids, attention_mask=real, groups=groups, group_names=("rest", "user", "needle"), **extra)
    stats = observe(model, known, NEEDS)
    inputs = forward_inputs(model, known)
    if name.split()[0] in MATERIALISED:  # falcon's SDPA class returns wrong maps, so the eager one is its oracle
        weights = output_attentions(ARCHITECTURES[name.split()[0]].build(), inputs)
        modules = [one.call.module for one in stats]
    else:
        recorded = eager_weights(network, inputs)
        names = {id(module): key for key, module in network.named_modules()}
        modules, weights = [names[id(module)] for module, _ in recorded], [one for _, one in recorded]
    assert [one.call.module for one in stats] == modules
    for one, eager in zip(stats, weights, strict=True):
        assert_equal(one, eager, known)
    text = [one for one in stats if one.call.tower in ("text", "decoder")]
    if text:
        assert [one.layer for one in text] == list(range(architecture.layers))
    if architecture.window is not None:
        assert architecture.window in {one.call.window for one in stats}
        assert ids.shape[1] > architecture.window


def test_the_model_is_left_as_it_was_found():
    network = ARCHITECTURES["gemma3"].build().train()
    network.model.layers[0].eval()
    before = {name: module.training for name, module in network.named_modules()}
    implementation = network.config._attn_implementation
    model = load((network, None), check=False)
    known = batch(model, torch.randint(5, 90, (1, 9)))

    def fail(_):
        raise RuntimeError("stop in the middle")

    with pytest.raises(RuntimeError, match="stop in the middle"):
        observe(model, known, {"entropy"}, on_layer=fail)
    assert {name: module.training for name, module in network.named_modules()} == before
    assert network.config._attn_implementation == implementation
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in network.modules())


def test_unknown_keyword_is_refused_by_name():
    from headatlas.probes.attention import attention_forward

    tensor = torch.zeros(1, 1, 2, 4)
    with pytest.raises(NotImplementedError, match="Module passes block_indices to its attention function"):
        attention_forward(torch.nn.Module(), tensor, tensor, tensor, None, block_indices=tensor)


def test_dataclass_of_a_call_says_where_it_was():
    architecture = ARCHITECTURES["llama"]
    model = load((architecture.build(), None))
    stats = observe(model, batch(model, torch.randint(5, 90, (1, 9))), {"entropy"})
    assert dataclasses.asdict(stats[1].call) == {
        "tower": "text", "layer": 1, "module": "model.layers.1.self_attn", "number": 0, "causal": True, "cross": False,
        "window": None, "heads": 4, "kv_heads": 2,
    }  # fmt: skip
