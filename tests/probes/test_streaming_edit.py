"""StreamingLLM's cache: a query meets what it would meet in a prompt of the kept tokens alone."""

import pytest
import torch
from headatlas.data.errors import UserError
from headatlas.probes.edits.edit import Edit
from headatlas.probes.forward import edited, observe
from headatlas.probes.generation import generate
from headatlas.probes.loading import load
from headatlas.probes.rotary import rotary_of

from .architectures import ARCHITECTURES
from .tiny import labelled, tiny

LENGTH, SINKS, RECENT = 23, 2, 5
ROTARY = ("gpt_neox", "llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "gpt_oss", "starcoder2", "olmoe",
          "mixtral", "smollm3", "cohere2")  # fmt: skip
STREAMING = Edit("streaming", sinks=SINKS, recent=RECENT)


def _ids(count=1, seed=3):
    return torch.randint(5, 90, (count, LENGTH), generator=torch.Generator().manual_seed(seed))


def _first_layer(model, ids, edits=(), **options):
    """What the heads of layer 0 write, [batch, head, query, d_head]: its keys know nothing of other tokens."""
    found = observe(model, labelled(model, ids, **options), {"output"}, edits=edits, layers=lambda one: one.layer == 0)
    return found[0].call, found[0]["output"]


def _kept(ids, query):
    """The tokens that a cache of StreamingLLM holds at a query, the query last."""
    return torch.cat([ids[:, :SINKS], ids[:, max(SINKS, query + 1 - RECENT) : query + 1]], dim=1)


@pytest.mark.parametrize("name", ROTARY)
def test_a_query_reads_as_in_a_prompt_of_the_tokens_that_are_kept(name):
    model, ids = load((ARCHITECTURES[name].build(), None)), _ids()
    call, found = _first_layer(model, ids, [STREAMING])
    _, masked = _first_layer(model, ids, [Edit("mask", sinks=SINKS, recent=RECENT)])
    reach = LENGTH if call.window is None else call.window  # beyond a window a sink is hidden, wherever it is counted
    queries = range(SINKS, min(LENGTH, reach))
    for query in queries:
        _, expected = _first_layer(model, _kept(ids, query))
        torch.testing.assert_close(
            found[:, :, query], expected[:, :, -1], rtol=0, atol=2e-6 * float(expected.abs().max()) + 1e-6
        )
    assert (found - masked)[:, :, queries[-1]].abs().max() > 1e-4, "positions made no difference"


def test_padding_before_a_prompt_changes_nothing():
    model, ids = tiny(), _ids(2)
    _, alone = _first_layer(model, ids[:1, : LENGTH - 6], [STREAMING])
    padded = torch.cat([torch.zeros(2, 6, dtype=torch.long), ids[:, : LENGTH - 6]], dim=1)
    mask = (torch.arange(LENGTH) >= 6).expand(2, -1)
    _, found = _first_layer(model, padded, [STREAMING], attention_mask=mask)
    torch.testing.assert_close(found[:1, :, 6:], alone, rtol=0, atol=1e-6)


def test_a_cache_that_holds_the_prompt_changes_nothing():
    model = tiny()
    batch = labelled(model, _ids())
    plain, found = edited(model, batch, []).logits, edited(model, batch, [Edit("streaming", recent=LENGTH)]).logits
    assert (plain - found).abs().max() <= 2e-6 * plain.abs().max()


@pytest.mark.parametrize("name", ["llama", "phi3"])
def test_steps_after_a_cache_are_those_of_whole_forwards(name):
    model, ids = load((ARCHITECTURES[name].build(), None)), _ids(2)
    batch = labelled(model, ids[:, :4])  # the cache fills while decoding
    found = generate(model, batch, [STREAMING], max_new_tokens=9, stop=(), keep_logits=True)
    whole = torch.cat([ids[:, :4], torch.tensor(found.responses)], dim=1)
    expected = edited(model, labelled(model, whole), [STREAMING]).logits[:, 3:-1]
    assert (found.logits - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(("name", "why"), [
    ("gpt2", "hands none to its attention modules"),
    ("deepseek_v3", "turns the queries of model.layers.0.self_attn in a way of its own"),
])  # fmt: skip
def test_a_model_whose_positions_are_not_known_is_refused(name, why):
    with pytest.raises(UserError, match=f"{why}; `mask` keeps the same keys"):
        rotary_of(load((ARCHITECTURES[name].build(), None)))


def test_many_layers_of_bfloat16_are_still_seen_to_turn():
    torch.manual_seed(0)
    network = ARCHITECTURES["llama"].build()
    config = network.config
    config.num_hidden_layers, config.layer_types = 32, None
    deep = load((type(network)(config).to(torch.bfloat16).eval(), None))
    assert len(rotary_of(deep).applied) == 32


def test_layers_without_positions_are_left_as_they_are():
    model = load((ARCHITECTURES["cohere2"].build(), None))
    turning = rotary_of(model).applied
    assert {call.module in turning for call in model.calls} == {True, False}
