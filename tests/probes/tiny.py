"""Tiny models that are measured in milliseconds, at hand or as a folder, and what a store holds of them."""

import torch
import transformers
from headatlas.data.tokens import GROUPS
from headatlas.probes.batching import batch
from headatlas.probes.forward import observe
from headatlas.probes.loading import load

VOCABULARY = 99
LAYERS, HEADS = 2, 4
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 40, "max_position_embeddings": 160,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def tiny_network(kind="Llama", *, sharp=6.0, seed=0, **changes):
    """A random causal model; weights times `sharp`, so that rows of attention differ."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**{**SHAPE, **changes})
    network = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() == 2 and "embed" not in name:
                parameter.mul_(sharp)
    return network


def tiny(kind="Llama", tokenizer=None, **changes):
    """The same, loaded: what `measure` takes."""
    return load((tiny_network(kind, **changes), tokenizer))


def uniform(kind="Llama", **changes):
    """A model whose queries are all zero, so that every visible key gets the same weight."""
    network = tiny_network(kind, **changes)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "q_proj" in name:
                parameter.zero_()
    return load((network, None))


def save(folder, *, tokenizer=None, network=None):
    """A model folder as `from_pretrained` reads it."""
    (network or tiny_network()).save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def labelled(model, ids, groups=None, **options):
    """A batch of ids with the labels of the data room (all `rest` unless given by name)."""
    labels = torch.zeros_like(ids, dtype=torch.int8)
    for name, place in (groups or {}).items():
        labels[:, place] = GROUPS.index(name)
    return batch(model, ids, groups=labels, group_names=GROUPS, **options)


def readings(model, known, one):
    """The probe's values [layer, batch, head, part] of one batch."""
    stats = observe(model, known, one.needs)
    return torch.stack([one.measure(call).values for call in stats])


KEYS = ["example", "probe", "part", "tower", "layer", "head"]


def rows_of(run, **where):
    """The rows of a run in one order, undefined ones included."""
    rows = run.rows(**where)
    return rows.astype({name: str for name in ("probe", "part", "tower")}).sort_values(KEYS).reset_index(drop=True)


def files(folder, pattern="*"):
    """name -> bytes of the files of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob(pattern)) if path.is_file()}
