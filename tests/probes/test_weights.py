"""Head weights read through TransformerLens, held against weights taken by hand from the transformers modules."""

import copy

import pytest
import torch
from headatlas.data.errors import UserError
from headatlas.probes import bridge
from headatlas.probes.catalog import all_readings
from headatlas.probes.folding import head_weights
from headatlas.probes.loading import load
from headatlas.probes.norms import norm_of
from torch import nn

from .architectures import ARCHITECTURES
from .tiny import tiny, tiny_network, uniform

WIDTH, HEADS, KV_HEADS, D_HEAD = 32, 4, 2, 8


def loaded(name, **changes):
    """A model of the tests' list whose norms do something: gains of 0.5 to 1.5, biases too."""
    network = ARCHITECTURES[name].build()
    torch.manual_seed(1)
    with torch.no_grad():
        for path, parameter in network.named_parameters():
            if "norm" in path.lower() or "ln_" in path:
                parameter.copy_(torch.rand_like(parameter) + 0.5)
    return load((network, None), **changes)


def rows(linear, heads):
    """nn.Linear [out, in] of joined heads, as [head, in, d_head]."""
    return linear.weight.detach().view(heads, -1, linear.weight.shape[1]).transpose(1, 2)


def centred(weight, axis):
    return weight - weight.mean(axis, keepdim=True)


def same(left, right):
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_llama_shares_kv_heads_and_folds_the_gain_of_rms_norm():
    model = loaded("llama")
    found, network = head_weights(model), model.network
    for layer, block in enumerate(network.model.layers):
        gain, attention = block.input_layernorm.weight.detach()[:, None], block.self_attn
        same(found.w_q[layer], gain * rows(attention.q_proj, HEADS))
        same(found.w_k[layer], gain * rows(attention.k_proj, KV_HEADS))
        same(found.w_v[layer], gain * rows(attention.v_proj, KV_HEADS))
        for head in range(HEADS):
            columns = attention.o_proj.weight.detach()[:, head * D_HEAD : (head + 1) * D_HEAD]
            same(found.w_o[layer, head], columns.T)
            same(found.v_per_head[layer, head], gain * rows(attention.v_proj, KV_HEADS)[head // 2])
    same(found.w_e, network.model.embed_tokens.weight.detach())
    unembedding = network.model.norm.weight.detach()[:, None] * network.lm_head.weight.detach().T
    same(found.w_u, centred(unembedding, 1))
    assert (found.layers, found.centred, found.directions, dict(found.unread)) == ((0, 1), False, 32, {})


def test_gpt2_joins_its_projections_and_centres():
    model = loaded("gpt2")
    found, network = head_weights(model), model.network
    for layer, block in enumerate(network.transformer.h):
        gain = block.ln_1.weight.detach()[:, None]
        parts = block.attn.c_attn.weight.detach().split(WIDTH, 1)  # Conv1D: [in, 3 * out]
        for name, part in zip(("w_q", "w_k", "w_v"), parts, strict=True):
            by_hand = part.view(WIDTH, HEADS, D_HEAD).transpose(0, 1)
            same(getattr(found, name)[layer], centred(gain * by_hand, 1))
        same(found.w_o[layer], centred(block.attn.c_proj.weight.detach().view(HEADS, D_HEAD, WIDTH), 2))
    same(found.w_e, centred(network.transformer.wte.weight.detach(), 1))
    unembedding = network.transformer.ln_f.weight.detach()[:, None] * network.lm_head.weight.detach().T
    same(found.w_u, centred(centred(unembedding, 0), 1))
    assert found.centred and found.directions == 31


def test_gpt_neox_interleaves_queries_keys_and_values_head_by_head():
    model = loaded("gpt_neox")
    found = head_weights(model)
    for layer, block in enumerate(model.network.gpt_neox.layers):
        gain = block.input_layernorm.weight.detach()[:, None]
        joined = block.attention.query_key_value.weight.detach().view(HEADS, 3, D_HEAD, WIDTH)
        for index, name in enumerate(("w_q", "w_k", "w_v")):
            same(getattr(found, name)[layer], centred(gain * joined[:, index].transpose(1, 2), 1))


def test_gemma_2_adds_one_to_its_gains_and_has_one_after_the_attention():
    model = loaded("gemma2")
    found = head_weights(model)
    for layer, block in enumerate(model.network.model.layers):
        gain = 1 + block.input_layernorm.weight.detach()[:, None]
        same(found.w_q[layer], gain * rows(block.self_attn.q_proj, HEADS))
        columns = block.self_attn.o_proj.weight.detach().view(WIDTH, HEADS, D_HEAD).permute(1, 2, 0)
        same(found.w_o[layer], columns * (1 + block.post_attention_layernorm.weight.detach()))
    assert dict(found.rescaled) == {"w_o": "model.layers.0.post_attention_layernorm"}


@pytest.mark.parametrize(("name", "joined"), [("qwen3", False), ("olmoe", True)])
def test_gains_over_queries_and_keys_are_multiplied_in(name, joined):
    """Qwen 3 norms each head, OLMoE all heads of a token together."""
    model = loaded(name)
    found = head_weights(model)
    for layer, block in enumerate(model.network.model.layers):
        gain, attention = block.input_layernorm.weight.detach()[:, None], block.self_attn
        for weight, linear, norm, heads in (
            (found.w_q, attention.q_proj, attention.q_norm, HEADS),
            (found.w_k, attention.k_proj, attention.k_norm, KV_HEADS),
        ):
            after = norm.weight.detach()
            same(weight[layer], gain * rows(linear, heads) * (after.view(heads, 1, D_HEAD) if joined else after))
    assert set(found.rescaled) == {"w_q", "w_k"}


READ = (
    "gpt2 gpt_neox llama mistral mixtral qwen2 qwen3 gemma2 gemma3 phi3 olmoe gpt_oss cohere2 smollm3 opt starcoder2 "
    "gptj mpt gpt_neo codegen"
).split()  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_architectures_whose_weights_give_what_the_model_computes(name):
    assert dict(head_weights(loaded(name)).unread) == {}


def test_logits_of_its_own_softmax_tell_wrong_queries_and_keys(monkeypatch):
    """GPT-J shows no queries: heads of W_Q in another order give other logits; XGLM's have biases and can't be told."""
    model = loaded("gptj")
    stored = bridge.stored_weights(model)
    object.__setattr__(stored, "weights", stored.weights | {"w_q": stored.weights["w_q"].flip(1)})
    monkeypatch.setattr("headatlas.probes.folding.stored_weights", lambda _: stored)
    expected = "W_Q and W_K do not give the logits of its own softmax in layer 0"
    assert head_weights(model).unread == {"w_q": expected, "w_k": expected}
    monkeypatch.undo()
    assert head_weights(loaded("xglm")).unread == {"w_q": expected, "w_k": expected}


def test_queries_that_the_weights_do_not_give_are_unread():
    """Llama 4 norms its queries and keys without a module that says so."""
    assert set(head_weights(loaded("llama4")).unread) == {"w_q", "w_k"}


@pytest.mark.parametrize(("name", "message"), [
    ("bert", r"BertForMaskedLM.* its weights can't be read per head: its attention does not read the norm before it"),
    ("olmo2", r"its attention has no norm before it; expected heads that read a norm of the residual stream"),
    ("t5", r"has two residual streams: weights are read of decoders alone"),
    ("albert", r"transformer-lens can't read its weights per head.*Unsupported architecture: AlbertForMaskedLM"),
    ("deepseek_v3", r"transformer-lens can't read its weights per head.*W_Q is not available on MLA"),
    ("bloom", r"W_O does not give what its attention writes in layer 0"),
    ("falcon", r"transformer-lens can't read its weights per head.*split_with_sizes"),
])  # fmt: skip
def test_models_that_cannot_be_read_are_refused_in_one_line(name, message):
    with pytest.raises(UserError, match=message) as refused:
        head_weights(load((ARCHITECTURES[name].build(), None)))
    assert "\n" not in str(refused.value)


def test_without_transformer_lens_the_reason_is_said(monkeypatch):
    def missing(network):
        raise ModuleNotFoundError("No module named 'transformer_lens'")

    monkeypatch.setattr(bridge, "_bridge", missing)
    with pytest.raises(UserError, match=r"can't read its weights per head.*No module named 'transformer_lens'"):
        head_weights(tiny())


def test_weights_cut_wrongly_are_caught(monkeypatch):
    """The order of heads, of KV heads, a transposed matrix, a gain left out: each is found by a few tokens."""
    model = loaded("llama")
    right = bridge.stored_weights(model)

    def with_weights(**changed):
        stored = copy.copy(right)
        object.__setattr__(stored, "weights", right.weights | changed)
        monkeypatch.setattr("headatlas.probes.folding.stored_weights", lambda _: stored)
        return head_weights(model)

    for name, change in {
        "W_V": {"w_v": right.weights["w_v"].flip(1)},
        "W_O": {"w_o": right.weights["w_o"].flip(1)},
    }.items():
        with pytest.raises(UserError, match=rf"{name} does not give"):
            with_weights(**change)
    assert set(with_weights(w_q=right.weights["w_q"].flip(1)).unread) == {"w_q"}
    assert set(with_weights(w_k=right.weights["w_k"].transpose(2, 3).reshape(2, 2, 32, 8)).unread) == {"w_k"}
    assert set(with_weights(w_e=right.weights["w_e"].flip(0)).unread) == {"w_e"}
    assert set(with_weights(w_u=right.weights["w_u"].flip(1)).unread) == {"w_u"}


def test_reading_leaves_the_model_as_it_was():
    """A bridge takes its model apart: it gets a twin, whose parameters are the model's own."""
    model = loaded("gpt2")
    ids, digest = torch.tensor([[5, 6, 7]]), model.digest
    before, modules = model.network(input_ids=ids).logits, [type(module) for module in model.network.modules()]
    head_weights(model)
    assert torch.equal(model.network(input_ids=ids).logits, before)
    assert [type(module) for module in model.network.modules()] == modules
    assert load((model.network, None)).digest == digest
    assert model.network.config._attn_implementation == "sdpa"


def test_half_precision_is_read():
    network = tiny_network().to(torch.bfloat16)
    found = head_weights(load((network, None)))
    assert found.w_q.dtype == torch.float32
    same(found.w_v[1], rows(network.model.layers[1].self_attn.v_proj, KV_HEADS).float())


def test_large_biases_in_half_precision_hide_no_right_weight():
    """Keys of Qwen 2 have biases a hundred times their differences; in bfloat16 those have two digits left."""
    network = ARCHITECTURES["qwen2"].build()
    with torch.no_grad():
        for block in network.model.layers:
            block.self_attn.k_proj.bias.normal_(std=100)
    assert dict(head_weights(load((network.to(torch.bfloat16), None))).unread) == {}


def test_queries_of_zero_are_read_and_match_nothing():
    found = head_weights(uniform())
    assert dict(found.unread) == {} and not found.w_q.any()
    assert all_readings()["matching_score"].measure(found).isnan().all()
    assert (all_readings()["qk_norm"].measure(found) == 0).all()


class Gained(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


GAIN = torch.linspace(-0.5, 2.0, 31)


@pytest.mark.parametrize(("function", "centres"), [
    (lambda x: nn.functional.layer_norm(x, (31,), GAIN, 3 * GAIN), True),
    (lambda x: nn.functional.rms_norm(x, (31,), GAIN, 1e-5), False),
    (lambda x: GAIN * x / x.norm(dim=-1, keepdim=True) * 31**0.5, False),
])  # fmt: skip
def test_a_norm_is_asked_for_its_gain_and_whether_it_centres(function, centres):
    norm = norm_of(Gained(function), 31, "norm")
    assert norm.centred == centres
    torch.testing.assert_close(norm.gain, GAIN, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", [torch.tanh, lambda x: x, lambda x: x.abs(), lambda x: x.square()])
def test_what_is_no_norm_is_refused(function):
    with pytest.raises(UserError, match=r"blocks.0.norm \(Gained\): expected a LayerNorm or an RMSNorm; it is neither"):
        norm_of(Gained(function), 31, "blocks.0.norm")
