"""Where the mass goes: one share per token group, of all queries and of those of the answer; per slot of a prompt.

Source: Wang et al., "On the Loss of Context-awareness in General Instruction Fine-tuning", section 3, and its code. The
paper reads, for each token of the response, the user mass of the head that has most of it, and averages over tokens.
Here each head is read by itself; the paper's number follows from the lists per token that a run keeps:

    lists = run.positions("context_dependency", example=0)  # one list per layer and head; the code takes layer 15
    numpy.nanmean(numpy.max(numpy.stack(lists["values"]), axis=0))  # max over heads at each token, mean over tokens

What is not covered: the code leaves newlines of the user's text out by their Llama ids; here they are user tokens.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ...data.groups import GROUPS, PARENTS, SLOTS, family
from ...kernels.stats import AttentionStats
from ..probe import answering, keys_in, probe, queries_in

PARTS = tuple(name for name in GROUPS if name != "padding")
"""Every label that a real token of any batch may carry; further ones count as their parents."""
SHARES = ("system", "user", "assistant", "template", "answer", "bos", "separator", "rest")
"""Who a token of a chat belongs to, with what lies below each; `rest` is all the others."""
SOURCE = "Wang et al., On the Loss of Context-awareness in General Instruction Fine-tuning, section 3"


@probe(
    needs={"group_mass"},
    parts=PARTS,
    title="Group mass",
    formula="mean_i sum_{j in group} p_ij, one part per group",
    unit="mass",
    bounds=(0, 1),
    higher="the head reads this group of tokens",
    caveat="a group of many tokens gets more by chance: divide by its share of the visible keys to compare groups",
    source="context allocation as in Wang et al., On the Loss of Context-awareness, section 3",
)
def group_mass(stats: AttentionStats) -> Tensor:
    """Mean attention weight on each group of tokens; a group the prompt does not have is undefined.

    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0], [0.25, 0.75]], group_mass.needs, groups=["bos", "rest"])
    >>> values = group_mass.measure(stats).values[0, 0]
    >>> {part: value for part, value in zip(PARTS, values.tolist()) if value == value}
    {'rest': 0.375, 'bos': 0.625}
    """
    members = {name: [one for one in stats.group_names if _part_of(one) == name] for name in PARTS}
    return torch.stack([_mass_on(stats, members[name]) for name in PARTS], dim=-1)


@probe(
    needs={"group_mass"},
    groups=("answer",),
    parts=SHARES,
    title="Answer allocation",
    formula=(
        "mean of sum_{j in group} p_ij over the queries i whose next token is the answer's; a group with its children "
        "(needle is user), rest: all other labels"
    ),
    unit="mass",
    bounds=(0, 1),
    higher="the answer is said while the head reads this group",
    caveat="larger groups get more by chance; with a template the first of these queries is the template's own token",
    source=SOURCE,
    default_data="chat",
)
def answer_allocation(stats: AttentionStats) -> Tensor:
    """Where the queries that must say the answer read: system, user, assistant, template, the answer so far, BOS, rest.

    The parts of a row add up to 1, less what a learned sink takes; a group the prompt does not have is undefined.

    >>> from headatlas.probes.worked import stats_of
    >>> weights = [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.5, 0.25, 0], [0, 0.5, 0.25, 0.25]]
    >>> stats = stats_of(weights, answer_allocation.needs, groups=["bos", "user", "template", "answer"])
    >>> values = answer_allocation.measure(stats).values[0, 0]  # of the third query alone: the answer follows it
    >>> {part: value for part, value in zip(SHARES, values.tolist()) if value == value}
    {'user': 0.5, 'template': 0.25, 'answer': 0.0, 'bos': 0.25}
    """
    families = {name: family(name) for name in SHARES[:-1]}
    named = {one for members in families.values() for one in members} | {"padding"}
    families["rest"] = tuple(one for one in stats.group_names if one not in named)
    values = torch.stack([_mass_on(stats, families[name]) for name in SHARES], dim=-1)
    return values.masked_fill(~answering(stats)[..., None], torch.nan)


@probe(
    needs={"group_mass"},
    groups=("user", "answer"),
    title="Context dependency",
    formula="mean over the tokens i of the answer of sum_{j in user} p_ij",
    unit="mass",
    bounds=(0, 1),
    higher="the answer's tokens read what the user said, the context passage in it",
    caveat=(
        "per head: the paper takes the highest head at each token; the queries are the answer's own tokens, not those "
        "that predict them; the longer the user's text, the more by chance"
    ),
    source=f"{SOURCE}; code analyse_dataset: max over heads of layer 15 per token, marked above 0.6",
    default_data="chat",
)
def context_dependency(stats: AttentionStats) -> Tensor:
    """Mean attention weight that the answer's tokens give to the user's, the needle and distractors among them.

    The paper's score of an answer: at each of its tokens the largest value over heads, then the mean over tokens. The
    lists per token are there for it: `run.positions("context_dependency", example=0, layer=15)`.

    >>> from headatlas.probes.worked import stats_of
    >>> weights = [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.75, 0, 0], [0.5, 0.25, 0, 0.25]]
    >>> stats = stats_of(weights, context_dependency.needs, groups=["template", "user", "answer", "answer"])
    >>> context_dependency.measure(stats).values.item()  # (0.75 + 0.25) / 2
    0.5
    """
    return torch.where(queries_in(stats, "answer"), _mass_on(stats, family("user")), torch.nan)


@probe(
    needs={"group_mass"},
    groups=("slot1", "answer"),
    parts=SLOTS,
    title="Slot mass",
    formula=(
        "mean of sum_{j in slot} p_ij over the queries i whose next token is the answer's, per slot; needle tokens "
        "belong to the slot whose tokens they follow"
    ),
    unit="mass",
    bounds=(0, 1),
    higher="the head reads the document in this place while the answer is said",
    caveat=(
        "a slot's mean is free of what stands there only over whole clusters, where each document has stood in each "
        "slot; a needle spread over several slots leaves those undefined; 0 where a window does not reach back"
    ),
    source="position bias: Liu et al., Lost in the Middle, section 2; permuted documents as in Wang et al., PINE",
    default_data="slots",
)
def slot_mass(stats: AttentionStats) -> Tensor:
    """Mean attention weight, of the queries that must say the answer, on the document in each slot.

    >>> from headatlas.probes.worked import stats_of
    >>> weights = [[1, 0, 0, 0], [0, 1, 0, 0], [0.25, 0.25, 0.5, 0], [0, 0, 0, 1]]
    >>> stats = stats_of(weights, slot_mass.needs, groups=["slot1", "slot2", "needle", "answer"])
    >>> slot_mass.measure(stats).values[0, 0, :2].tolist()  # the needle stands in slot 2
    [0.25, 0.75]
    """
    needle, places = _mass_on(stats, ("needle",)), _needle_slots(stats)
    parts = []
    for name in SLOTS:
        mass, (holds, alone) = _mass_on(stats, (name,)), places[name]
        whole = torch.where(holds, mass + needle, mass)
        parts.append(torch.where(holds & ~alone, torch.nan, whole))
    return torch.stack(parts, dim=-1).masked_fill(~answering(stats)[..., None], torch.nan)


def _part_of(label: str) -> str:
    """The part of `group_mass` a label counts to: itself, or the nearest above it that is one."""
    while label not in PARTS and label in PARENTS:
        label = PARENTS[label]
    return label


def _mass_on(stats: AttentionStats, members: Iterable[str]) -> Tensor:
    """[batch, head, query], mass on the keys of these labels; NaN in an example that has none of them."""
    mass = stats["group_mass"]
    index = [stats.group_names.index(name) for name in members if name in stats.group_names]
    if stats.key_groups is None or not index:
        return torch.full_like(mass[..., 0], torch.nan)
    there = torch.isin(stats.key_groups, torch.tensor(index, dtype=stats.key_groups.dtype, device=mass.device)).any(1)
    return torch.where(there[:, None, None], mass[..., index].sum(-1), torch.nan)


def _needle_slots(stats: AttentionStats) -> dict[str, tuple[Tensor, Tensor]]:
    """Slot -> (whether needle tokens follow its tokens, whether all needle tokens do), both bool [batch, 1, 1]."""
    needle = keys_in(stats, "needle")[:, 0]
    slots = torch.stack([keys_in(stats, name)[:, 0] for name in SLOTS])  # [slot, batch, key]
    place = torch.arange(needle.shape[-1], device=needle.device)
    last = torch.where(slots.any(0), place, -1).cummax(-1).values  # the slot token before each key, -1: none
    found = {}
    for name, mask in zip(SLOTS, slots, strict=True):
        inside = mask.gather(-1, last.clamp(min=0)) & (last >= 0) & needle
        found[name] = (inside.any(-1)[:, None, None], (inside == needle).all(-1)[:, None, None])
    return found
