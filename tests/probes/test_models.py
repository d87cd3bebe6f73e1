"""Loading: what a model is called, what it is known by, and what is refused by name with the reason."""

import inspect
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import transformers
from headatlas.data.errors import UserError
from headatlas.probes import check, materialised
from headatlas.probes.attention import attention_forward
from headatlas.probes.batching import batch
from headatlas.probes.forward import observe
from headatlas.probes.loading import load
from headatlas.probes.models import Model
from torch import nn

from ..data.tokenizers_offline import byte_bpe, word_level
from .architectures import ARCHITECTURES
from .tiny import HEADS, LAYERS, save, tiny, tiny_network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "tiny-llama", tokenizer=word_level())


# what a model is known by


def test_the_same_weights_under_another_name_are_the_same_model(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "another-name")
    one, other = load(folder), load(copy)
    assert one.name != other.name
    assert one.digest == other.digest == tiny().digest
    assert len(one.digest) == 16
    int(one.digest, 16)


def test_one_changed_weight_is_another_model():
    network = tiny_network()
    with torch.no_grad():
        network.model.layers[1].mlp.up_proj.weight[3, 5] += 1e-6
    assert load((network, None)).digest != tiny().digest


def test_another_dtype_is_another_model():
    assert load((tiny_network().to(torch.bfloat16), None)).digest != tiny().digest


def test_the_digest_of_a_tokenizer_is_of_its_definition(folder):
    first = load(folder).tokenizer_digest
    assert first == tiny(tokenizer=word_level()).tokenizer_digest
    assert first != tiny(tokenizer=word_level(frame="none")).tokenizer_digest
    assert first != tiny(tokenizer=word_level(template=None)).tokenizer_digest
    assert tiny().tokenizer_digest == ""
    bigger = byte_bpe()
    assert tiny(tokenizer=bigger, vocab_size=len(bigger)).tokenizer_digest != first


def test_using_a_tokenizer_does_not_make_it_another_one():
    """Padding and truncation stay switched on inside a fast tokenizer after a call that asked for them."""
    tokenizer = word_level()
    before = tiny(tokenizer=tokenizer).tokenizer_digest
    tokenizer(["a b c", "a"], padding=True, truncation=True, max_length=2)
    assert tiny(tokenizer=tokenizer).tokenizer_digest == before


# where a model comes from


def test_folder_tuple_and_model_give_the_same(folder):
    network = tiny_network()
    for model in (load(folder), load(str(folder)), load((network, word_level())), load(network)):
        assert (model.backend, model.dtype, model.device.type) == ("interface", "float32", "cpu")
        assert model.digest == tiny().digest
        assert [call.layer for call in model.calls] == [0, 1]
    assert load(folder).name == str(folder)
    assert load(network).tokenizer is None
    assert load(folder).tokenizer("the sky")["input_ids"] == word_level()("the sky")["input_ids"]
    assert not load(folder).network.training


def test_card_and_repr(folder):
    card = load(folder).card()
    assert {key: card[key] for key in ("class", "layers", "heads", "kv_heads", "head_dim", "max_length")} == {
        "class": "LlamaForCausalLM", "layers": LAYERS, "heads": HEADS, "kv_heads": 2, "head_dim": 8, "max_length": 160,
    }  # fmt: skip
    assert card["parameters"] == sum(parameter.numel() for parameter in tiny_network().parameters())
    json.dumps(card)
    assert repr(tiny()).startswith("Model('LlamaForCausalLM', 2 layers x 4 heads, 0.0203 M parameters, float32 on cpu")


@pytest.mark.parametrize(("name", "length"), [
    ("llama", 64), ("gpt2", 64), ("bert", 64), ("mpt", 64), ("bloom", None), ("t5", None), ("vit", None),
])  # fmt: skip
def test_max_length(name, length):
    assert load((ARCHITECTURES[name].build(), None)).max_length == length


def encoder(name):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40,
        max_position_embeddings=66, pad_token_id=1,
    )  # fmt: skip
    network = getattr(transformers, f"{name}Model")(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(8 if parameter.dim() == 2 else 1)
    return load((network, None))


@pytest.mark.parametrize(("name", "first", "longest"), [
    ("Bert", 0, 66), ("Roberta", 2, 64), ("XLMRoberta", 2, 64), ("Camembert", 2, 64), ("MPNet", 2, 64), ("Esm", 2, 64),
])  # fmt: skip
def test_positions_that_do_not_start_at_zero(name, first, longest):
    """Left padding moves no real token to another position, and no position is asked for that the table lacks."""
    model = encoder(name)
    assert (model.first_position, model.max_length) == (first, longest)
    ids = torch.randint(5, 90, (1, 20), generator=torch.Generator().manual_seed(0))
    pad = torch.ones(1, 6, dtype=torch.long)
    real = torch.cat([torch.zeros_like(pad), torch.ones_like(ids)], dim=1)
    alone = observe(model, batch(model, ids), {"entropy"})
    padded = observe(model, batch(model, torch.cat([pad, ids], dim=1), attention_mask=real), {"entropy"})
    for one, other in zip(alone, padded, strict=True):
        torch.testing.assert_close(other["entropy"][:, :, 6:], one["entropy"], rtol=1e-5, atol=1e-5)
    full = torch.randint(5, 90, (1, longest))
    assert len(observe(model, batch(model, full), {"entropy"})) == 2
    with pytest.raises((IndexError, RuntimeError)):
        observe(model, batch(model, torch.cat([full, full[:, :1]], dim=1)), {"entropy"})


def test_positions_that_start_in_a_buffer():
    model = encoder("Nystromformer")
    assert (model.first_position, model.max_length) == (2, 66)


def test_dtype_is_kept_or_asked_for(folder):
    assert load(folder, dtype="bfloat16").dtype == "bfloat16"
    assert load(folder, dtype=torch.float64).dtype == "float64"
    assert load(folder).dtype == "float32"


# towers


def test_towers_tell_the_window_of_each_layer():
    (tower,) = load((ARCHITECTURES["gemma3"].build(), None)).towers()
    windows = {"0": 8, "1": 8, "2": 8, "3": 8, "4": 8}
    assert tower == {"name": "text", "layers": 6, "heads": 4, "kv_heads": 2, "windows": windows, "causal": True}


def test_towers_of_two_kinds():
    found = load((ARCHITECTURES["clip"].build(), None)).towers()
    assert [(one["name"], one["layers"], one["causal"]) for one in found] == [("vision", 2, False), ("text", 2, True)]
    found = load((ARCHITECTURES["t5"].build(), None)).towers()
    assert [(one["name"], one["causal"]) for one in found] == [("encoder", False), ("decoder", True), ("cross", False)]
    (shared,) = load((ARCHITECTURES["albert"].build(), None)).towers()
    assert shared["layers"] == 3


# what is refused


def test_remote_code_is_off_by_default(tmp_path):
    assert inspect.signature(load).parameters["trust_remote_code"].default is False
    marker = tmp_path / "was-run"
    folder = tmp_path / "remote"
    folder.mkdir()
    (folder / "mine.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nfrom transformers import PretrainedConfig\n\n\n"
        "class MineConfig(PretrainedConfig):\n    model_type = 'mine'\n"
    )
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.MineConfig"}, "architectures": ["Mine"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="custom code"):
        load(folder)
    assert not marker.exists()


class Peculiar(transformers.LlamaForCausalLM):
    """A llama whose attention is neither the interface's, nor SDPA, nor a softmax."""

    def __init__(self, config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.self_attn = LinearAttention(config.hidden_size)


class LinearAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, hidden_states, **others):
        return self.mix(hidden_states.cumsum(1)), None


def test_a_model_without_softmax_attention_is_refused_with_the_reason():
    network = Peculiar(tiny_network().config).eval()
    message = (
        r"Peculiar \(Peculiar\): expected attention calls through transformers' attention interface, SDPA or softmax, "
        r"saw none; its heads can't be measured"
    )
    with pytest.raises(UserError, match=message):
        load((network, None))


def test_a_model_whose_outputs_change_inside_the_capture_is_refused():
    """One that adds something to its output only where its attention is not ours."""
    network = tiny_network()

    def cheat(module, inputs, output):
        ours = network.config._attn_implementation == "headatlas"
        return (output[0] * (1.5 if ours else 1.0), *output[1:])

    network.model.layers[0].self_attn.register_forward_hook(cheat)
    with pytest.raises(UserError, match=r"its outputs change by .* when its attention is captured .*'sdpa'"):
        load((network, None))
    assert load((network, None), check=False).calls == []


def test_rows_of_more_than_all_mass_are_refused(monkeypatch):
    model = tiny()
    observer = SimpleNamespace(
        collected=[replace(stats, values_by_name={"visible_keys": torch.ones(1, 1, 1), "row_mass": torch.full((1, 1, 1), 1.1)})
                   for stats in observe(model, batch(model, torch.randint(5, 90, (1, 5))), {"row_mass"})]
    )  # fmt: skip
    with pytest.raises(
        UserError, match=r"rows of attention weights that sum to 1; in model\.layers\.0\.self_attn .* 1\.1000"
    ):
        check._check_rows(model, observer)


def test_nan_outputs_are_refused():
    network = tiny_network()
    with torch.no_grad():
        network.model.layers[0].self_attn.o_proj.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="outputs change by nan"):
        load((network, None))


def test_an_unknown_keyword_is_refused_by_name_with_the_model():
    tensor = torch.zeros(1, 1, 2, 4)
    with pytest.raises(NotImplementedError, match="Linear passes learned_sparsity to its attention function"):
        attention_forward(nn.Linear(1, 1), tensor, tensor, tensor, None, learned_sparsity=tensor, use_cache=False)
    output, _ = attention_forward(nn.Linear(1, 1), tensor, tensor, tensor, None, learned_sparsity=None, use_cache=False)
    assert output.shape == (1, 2, 1, 4)


class Sparse(transformers.LlamaForCausalLM):
    """A llama that passes its attention something nobody knows."""

    def forward(self, input_ids=None, **others):
        return super().forward(input_ids, learned_sparsity=torch.ones(1), **others)


class MaskReader(transformers.MistralForCausalLM):
    """A mistral that reads the values of its mask."""

    def __init__(self, config):
        super().__init__(config)
        self.model.layers[0].self_attn.register_forward_pre_hook(self.read, with_kwargs=True)

    def read(self, module, inputs, options):
        return inputs, {**options, "attention_mask": options["attention_mask"].clone()}


@pytest.mark.parametrize(("kind", "reason"), [
    (Sparse, "NotImplementedError: LlamaAttention passes learned_sparsity to its attention function"),
    (MaskReader, "AttributeError: 'MaskRule' object has no attribute 'clone'"),
])  # fmt: skip
def test_a_model_that_fails_inside_the_capture_is_refused_with_the_reason(kind, reason):
    base = kind.__bases__[0].__name__.removesuffix("ForCausalLM")
    network = kind(tiny_network(base, **({"sliding_window": 8} if base == "Mistral" else {})).config).eval()
    message = rf"{kind.__name__} \({kind.__name__}\): its forward fails when its attention is captured, .*; {reason}"
    with pytest.raises(UserError, match=message):
        load((network, None))


def test_a_model_outside_the_interface_refuses_long_prompts(monkeypatch, tmp_path):
    from headatlas.probes import batching
    from headatlas.probes.measure import measure

    assert materialised.MAX_KEYS == batching.MAX_KEYS == 8192
    model = load((ARCHITECTURES["bloom"].build(), None))
    assert model.backend == "materialised"
    monkeypatch.setattr(batching, "MAX_KEYS", 30)
    fine = batch(model, torch.randint(5, 90, (1, 30)))
    assert len(observe(model, fine, {"entropy"})) == 2
    message = (
        r"BloomForCausalLM is outside the attention interface, so its n x n maps are held: expected at most 30 tokens, "
        r"got 31; use shorter prompts"
    )
    with pytest.raises(UserError, match=message):
        observe(model, batch(model, torch.randint(5, 90, (1, 31))), {"entropy"})
    with pytest.raises(UserError, match=message):
        measure(model, "entropy", "random:length=31", examples=2, store=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_what_a_softmax_does_not_show_is_refused_by_name():
    model = load((ARCHITECTURES["gptj"].build(), None))
    with pytest.raises(NotImplementedError, match=r"computes its own softmax, .* value_weighted_mass can't be had"):
        observe(model, batch(model, torch.randint(5, 90, (1, 9))), {"value_weighted_mass", "entropy"})


def test_ids_the_model_has_no_embedding_for_are_refused():
    model = tiny()
    for token, name in ((99, "99"), (-1, "-1")):
        with pytest.raises(UserError, match=f"example '1' has token id {name}; LlamaForCausalLM knows 0 to 98"):
            observe(model, batch(model, torch.tensor([[5, 6], [5, token]])), {"entropy"})


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"attention_mask: expected the shape of the token ids \[1, 9\], got \[1, 8\]"):
        batch(tiny(), torch.randint(5, 90, (1, 9)), attention_mask=torch.ones(1, 8))


def test_models_compare_by_identity():
    model = tiny()
    assert isinstance(model, Model)
    assert model == model
    assert model != tiny()
