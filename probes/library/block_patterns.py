"""Which sparse mask would serve a head: FlexPrefill's class, MInference's three recalls, SeerAttention's block maps.

Sources: Lai et al., "FlexPrefill"; Jiang et al., "MInference 1.0"; Gao et al., "SeerAttention". All three read one
prompt, not the model: a head may change its class with the prompt. Blocks are counted from the first real token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.stats import BLOCK_SIZE, NOTHING, AttentionStats
from ..probe import position_of, probe
from ..tails import by_key_block, largest, length_of, mass_kept, tail_of

PREFILL = 128
"""FlexPrefill: queries looked at, and keys of a block."""
TAU = 0.1
"""FlexPrefill: a head whose distance is below this is block-sparse (query-aware)."""


def _distance(left: Tensor, right: Tensor) -> Tensor:
    """sqrt of the Jensen-Shannon divergence of two distributions over the last axis, in nats; 0 ln 0 = 0."""
    middle = (left + right) / 2
    known = torch.where(middle > 0, middle, 1.0)
    terms = torch.xlogy(left, left / known) + torch.xlogy(right, right / known)
    return (terms.sum(-1) / 2).clamp(min=0).sqrt()


@probe(
    needs={f"tail_weights:{PREFILL}", f"tail_estimate:{PREFILL}"},
    parts=("distance", "block-sparse"),
    title="Query-aware (FlexPrefill)",
    formula="D = sqrt(JSD(softmax_c(scale mean_i q_i . mean_j k_j), mean_i sum_j p_ij)), natural logarithm; last 128 "
    "queries i, blocks c of 128 keys j; block-sparse = 1[D < 0.1]",
    unit="D: sqrt nats, at most sqrt(ln 2) = 0.833; block-sparse: share",
    bounds=(0, 1),
    higher="D: pooled queries and keys do not tell where the head looks (vertical-slash); block-sparse: they do",
    caveat="a class of the prompt, not of the head; few blocks make it easy: the paper's prompts have hundreds; "
    "undefined up to 256 tokens, where the paper's code is dense",
    source="Lai et al., FlexPrefill, query-aware sparse pattern determination; code get_active_blocks",
    per="example",
    causal_only=True,
    first_queries=PREFILL,
    shortest=2 * PREFILL + 1,
)
def query_aware(stats: AttentionStats) -> Tensor:
    """Distance between what pooled queries and keys promise of the last 128 queries and where these look.

    The paper's code has ln(p / m) unguarded: a block of weight 0 makes D NaN there, and the head vertical-slash.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> flat = {"queries": torch.zeros(384, 1), "keys": torch.zeros(384, 1)}  # promises a third to each of 3 blocks
    >>> weights = torch.eye(384)
    >>> weights[256:] = 0.0
    >>> weights[256:, [0, 128, 256]] = 1 / 3  # and so it is
    >>> distance, block_sparse = query_aware.measure(stats_of(weights, query_aware.needs, **flat)).values[0, 0].tolist()
    >>> round(distance, 3), block_sparse
    (0.0, 1.0)
    >>> weights[256:] = 0.0
    >>> weights[256:, 0] = 1.0  # all in one block: sqrt((ln(3/2) + (ln(1/2) + 2 ln 2) / 3) / 2)
    >>> distance, block_sparse = query_aware.measure(stats_of(weights, query_aware.needs, **flat)).values[0, 0].tolist()
    >>> round(distance, 3), block_sparse
    (0.564, 0.0)
    """
    rows, there = tail_of(stats, PREFILL)
    truth = by_key_block(rows.mean(-2).double(), stats, PREFILL)
    estimate = stats[f"tail_estimate:{PREFILL}"].double()
    distance = _distance(truth, estimate)
    found = torch.stack([distance, (distance < TAU).to(distance.dtype)], dim=-1)
    there = there & (length_of(stats) >= query_aware.shortest)[:, None]
    return torch.where(there[..., None], found, torch.nan)


TAIL = 64
"""MInference: queries looked at."""
CELL = 32
"""MInference's search: rows and columns of a block."""
SHARE = 8
"""One key in so many is kept; MInference's block-sparse candidate keeps one block in 8."""
SPLITS = ((30, 800), (100, 750), (500, 700), (3500, 100))
"""MInference's (vertical, slash) candidates; their proportions are kept, the best one counts."""
SINKS = 9
"""One kept key in so many is a sink: MInference's A-shape has 100 of 900."""


@probe(
    needs={f"tail_weights:{TAIL}"},
    parts=("a-shape", "vertical-slash", "block"),
    title="Pattern recall (MInference)",
    formula="mean_i sum_j p_ij m_ij, last 64 queries i; each mask m keeps at most b = 1/8 of the visible keys per row",
    unit="mass",
    bounds=(0, 1),
    higher="a mask of this pattern keeps what the head reads",
    caveat="the masks are chosen on the rows they are judged on, and vertical-slash is the best of 4: an upper bound; "
    "undefined for fewer than 512 tokens, or a shorter window",
    source="Jiang et al., MInference 1.0, offline search of a pattern per head; code search_pattern",
    per="example",
    causal_only=True,
    first_queries=TAIL,
    shortest=512,
)
def pattern_recall(stats: AttentionStats) -> Tensor:
    """Attention weight that A-shape, vertical-slash and block-sparse masks keep at one budget of keys per row.

    b is a whole number of blocks of 32. A-shape: the first b // 9 keys and the nearest b - b // 9 (in a window that the
    prompt exceeds, the nearest b). Vertical-slash: v columns and b - v offsets of the most mass over the 64 rows, v in
    MInference's four proportions. Block: for each 32 rows the b / 32 blocks of the most mass.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.eye(512)
    >>> weights[448:] = 0.0
    >>> weights[448:, 40:440:80] = 0.2  # five columns in five blocks, of which b = 64 keys pay for two
    >>> recalls = pattern_recall.measure(stats_of(weights, pattern_recall.needs)).values[0, 0].tolist()
    >>> [round(value, 2) for value in recalls]
    [0.0, 1.0, 0.4]
    """
    rows, there = tail_of(stats, TAIL)
    place, length = position_of(stats)[:, 0], length_of(stats)
    window = stats.call.window
    seen = length if window is None else length.clamp(max=window)
    budget = seen // SHARE // CELL * CELL
    last = length[:, None] - torch.arange(rows.shape[-2], 0, -1, device=place.device)
    offset = (last[:, :, None] - place[:, None, :]).clamp(min=0)  # [batch, row, key]; a hidden key weighs nothing
    sinks = torch.where(seen == length, budget // SINKS, 0)
    shape = (place < sinks[:, None])[:, None] | (offset < (budget - sinks)[:, None, None])
    found = [mass_kept(rows, shape[:, None]), _vertical_slash(rows, offset, budget), _blocks(rows, stats, budget)]
    there = there & (seen >= pattern_recall.shortest)[:, None]
    return torch.where(there[..., None], torch.stack(found, dim=-1), torch.nan)


def _vertical_slash(rows: Tensor, offset: Tensor, budget: Tensor) -> Tensor:
    """The best recall of MInference's proportions of columns and offsets, [batch, head]."""
    index = offset[:, None].expand(rows.shape)
    columns = rows.sum(-2)
    slashes = torch.zeros_like(columns).scatter_add_(-1, index.flatten(-2), rows.flatten(-2))
    found = []
    for vertical, slash in SPLITS:
        count = (budget * vertical / (vertical + slash)).round().long()
        across = largest(columns, count)[..., None, :]
        along = largest(slashes, budget - count)[..., None, :].expand(rows.shape).gather(-1, index)
        found.append(mass_kept(rows, across | along))
    return torch.stack(found).amax(0)


def _blocks(rows: Tensor, stats: AttentionStats, budget: Tensor) -> Tensor:
    """Mass in the best blocks of each group of rows, [batch, head]."""
    mass = by_key_block(rows.unflatten(-2, (-1, CELL)).mean(-2), stats, CELL)
    return torch.where(largest(mass, budget // CELL), mass, 0.0).sum(-1).mean(-1)


SHARES = (0.1, 0.25)


@probe(
    needs={"pooled_max"},
    parts=tuple(f"{share:.0%}" for share in SHARES),
    title="Block sparsity (ground truth)",
    formula="mean over block rows I of the share of sum_J M_IJ held by the ceil(s n_I) largest of the n_I blocks that "
    "I sees; M_IJ = max of p_ij over a block pair, 64 x 64; s = 10, 25 %",
    unit="share",
    bounds=(0, 1),
    higher="few blocks hold the peaks of the map: a gate could leave the others out",
    caveat="peaks, not mass: a block of one large weight counts as much as one of many; block rows of fewer than 10 "
    "(4) blocks have no say, so 10 % needs 577 tokens and 25 % 193",
    source="Gao et al., SeerAttention, training of the gate (its target is the max-pooled attention map)",
    per="example",
    causal_only=True,
    shortest=3 * BLOCK_SIZE + 1,
)
def block_truth(stats: AttentionStats) -> Tensor:
    """Share of a max-pooled block row that its top 10 and 25 % of blocks hold.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.zeros(256, 256)
    >>> weights[:, 0] = 0.75  # a sink and the token itself: the last of 4 block rows is (0.75, 0, 0, 0.25)
    >>> weights = weights + 0.25 * torch.eye(256)
    >>> block_truth.measure(stats_of(weights, block_truth.needs)).values[0, 0].tolist()
    [nan, 0.75]
    """
    grid = stats["pooled_max"]
    row = torch.arange(grid.shape[-2], device=grid.device)
    nearest = BLOCK_SIZE * row if stats.call.window is None else BLOCK_SIZE * row - stats.call.window + 1
    first = torch.zeros_like(row) if stats.call.window is None else nearest.clamp(min=0) // BLOCK_SIZE
    count = row - first + 1
    there = row < -(-length_of(stats) // BLOCK_SIZE)[:, None, None]
    total = grid.sum(-1)
    running = grid.sort(dim=-1, descending=True).values.cumsum(-1)
    parts = []
    for share in SHARES:
        kept = (share * count - 1e-6).ceil().long()
        held = running.gather(-1, (kept - 1).expand(total.shape)[..., None]).squeeze(-1) / total.clamp(min=NOTHING)
        says = there & (total > 0) & (share * count >= 1 - 1e-6)
        parts.append(torch.where(says, held, torch.nan).nanmean(-1))
    return torch.stack(parts, dim=-1).clamp(max=1)
