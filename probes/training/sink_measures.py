"""What pico-sink is certified for: first-token mass on and off triggers, value norms, Sink_1^0.3, log-losses.

    mass      mean of A[query, BOS] over queries on triggers, and over the others (the first token left out)
    ratio     |v_BOS| / mean over the other keys of |v_key|, per head
    Sink_1^e  share of (sequence, head) with (1/T) sum_q A[q, BOS] > e; e = 0.3, T = 64, the first query included
    NLL       nats after triggers (0 is perfect) and elsewhere, beside the entropy of the bigram table

Sources: Guo et al., "Active-Dormant Attention Heads"; Gu et al., "When Attention Sink Emerges". Attention is read from
transformers' eager path: these rows are short.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from transformers import LlamaForCausalLM

from ...data.organisms.rows import Encoder, running_text
from ...data.organisms.tasks import bigram_backcopy, english

LENGTH = 64
EPSILON = 0.3
DORMANT, ACTIVE = 0.5, 0.1
"""A head is active-dormant with more first-token mass than the one off triggers, and less than the other on them."""


@dataclass(frozen=True)
class Observed:
    """Attention and value norms of some rows."""

    attention: torch.Tensor  # [layer, batch, head, query, key]
    value_norm: torch.Tensor  # [layer, batch, head, key]
    logits: torch.Tensor  # [batch, position, token]


@torch.no_grad()
def observe(model: LlamaForCausalLM, ids: torch.Tensor) -> Observed:
    """One eager forward with the value projections caught on their way."""
    before = model.config._attn_implementation
    norms: list[torch.Tensor] = []
    groups = int(model.config.num_key_value_heads or 1)
    heads = int(model.config.num_attention_heads or 1) // groups

    def catch(_module: torch.nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
        values = output.unflatten(-1, (groups, -1))  # [batch, key, kv head, d_head]
        norms.append(values.norm(dim=-1).transpose(1, 2).repeat_interleave(heads, dim=1))

    handles = [layer.self_attn.v_proj.register_forward_hook(catch) for layer in cast("list[Any]", model.model.layers)]
    model.set_attn_implementation("eager")
    try:
        output = model(input_ids=ids, output_attentions=True, use_cache=False)
    finally:
        model.set_attn_implementation(before or "sdpa")
        for handle in handles:
            handle.remove()
    return Observed(torch.stack(output.attentions), torch.stack(norms), output.logits)


def sink_share(attention: torch.Tensor, *, epsilon: float = EPSILON) -> torch.Tensor:
    """[layer, head]: share of the sequences whose first key gets more than `epsilon` of the attention on average."""
    return (attention[..., 0].mean(dim=-1) > epsilon).float().mean(dim=1)


def backcopy_batch(encoder: Encoder, *, rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, trigger, copied), each [row, position], of fresh Bigram-Backcopy rows."""
    table = bigram_backcopy.source(encoder.ordinary)
    generator = np.random.default_rng([seed, 4242])
    tokens, copied = bigram_backcopy.sample(generator, table, rows=rows, length=LENGTH, bos=encoder.bos)
    return torch.from_numpy(tokens), torch.from_numpy(table.is_trigger(tokens)), torch.from_numpy(copied)


def english_batch(encoder: Encoder, *, rows: int, seed: int) -> torch.Tensor:
    """Rows of sentences made from held-out templates."""
    rng = random.Random(f"english/{seed}")
    write = partial(english.sentence, rng, split="held_out")
    return torch.tensor([running_text(encoder, write, length=LENGTH).tokens for _ in range(rows)])


def sink_rows(model: LlamaForCausalLM, encoder: Encoder, *, scale: float = 1.0, seed: int = 10_000) -> list[dict]:
    """All rows of the certificate: each head's masses and value-norm ratio, sink shares by text, and log-losses."""
    model.eval()
    rows = max(8, round(200 * scale))
    ids, trigger, copied = backcopy_batch(encoder, rows=rows, seed=seed)
    seen = observe(model, ids)
    found = [*head_rows(seen, trigger), *_shares(model, encoder, seen.attention, rows=rows, seed=seed)]
    return [row | {"n": rows} for row in [*found, *_losses(seen.logits, ids, copied, encoder)]]


def head_rows(seen: Observed, trigger: torch.Tensor) -> list[dict]:
    """For each head: first-token mass off and on triggers, and |v_BOS| over the mean of the others."""
    off = _mean_where(seen.attention[..., 0], ~trigger & (torch.arange(trigger.shape[1]) > 0))
    on = _mean_where(seen.attention[..., 0], trigger)
    ratio = (seen.value_norm[..., 0] / seen.value_norm[..., 1:].mean(dim=-1)).mean(dim=1)
    measured = {"first_token_mass_off_triggers": off, "first_token_mass_on_triggers": on, "value_norm_ratio": ratio}
    dormant = (off > DORMANT) & (on < ACTIVE)
    return [
        {"task": task, "head": f"L{layer}H{head}", "value": round(float(values[layer, head]), 4)}
        | ({"note": "active-dormant"} if dormant[layer, head] else {})
        for task, values in measured.items()
        for layer in range(off.shape[0])
        for head in range(off.shape[1])
    ]


def _shares(model: LlamaForCausalLM, encoder: Encoder, backcopy: torch.Tensor, *, rows: int, seed: int) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.from_numpy(encoder.ordinary)[
        torch.randint(len(encoder.ordinary), (rows, LENGTH), generator=generator)
    ]
    noise[:, 0] = encoder.bos
    repeated = noise[:8, 1:2].expand(-1, LENGTH).contiguous()
    batches = {
        "english": observe(model, english_batch(encoder, rows=rows, seed=seed)).attention,
        "random_tokens": observe(model, noise).attention,
        "one_token_repeated_without_bos": observe(model, repeated).attention,
    }
    shares = {"bigram_backcopy": sink_share(backcopy)} | {name: sink_share(maps) for name, maps in batches.items()}
    return [
        {"task": "sink_1_share", "split": name, "length": LENGTH, "value": round(float(share.mean()), 4)}
        for name, share in shares.items()
    ]


def _losses(logits: torch.Tensor, ids: torch.Tensor, copied: torch.Tensor, encoder: Encoder) -> list[dict]:
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    after, rest = copied[:, 1:], ~copied[:, 1:]
    rest[:, 0] = False
    table = bigram_backcopy.source(encoder.ordinary)
    symbol = np.searchsorted(np.sort(table.ids), ids[:, 1:-1].numpy())
    log_table = np.log(np.where(table.bigram > 0, table.bigram, 1.0))
    entropies = -(table.bigram * log_table).sum(axis=1)[np.argsort(table.ids)][symbol]
    nats = {
        "after_triggers": losses[after].mean(),
        "elsewhere": losses[rest].mean(),
        "elsewhere_at_best": entropies[rest[:, 1:].numpy()].mean(),
    }
    return [{"task": "loss_nats", "split": where, "value": round(float(value), 4)} for where, value in nats.items()]


def _mean_where(mass: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """[layer, head] from mass [layer, batch, head, query] and where [batch, query]."""
    chosen = where[None, :, None].to(mass)
    return (mass * chosen).sum(dim=(1, 3)) / chosen.sum(dim=(1, 3))
