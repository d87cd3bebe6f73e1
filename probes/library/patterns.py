"""Token patterns: previous-token, duplicate-token and induction attention.

Definitions follow the detection patterns of TransformerLens' head_detector; a query without a matching key is undefined
and left out instead of counting as 0. High attention to the pattern is not yet the behaviour: test it by ablation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.stats import AttentionStats
from ..probe import position_of, probe, queries_in

INDUCTION = "Olsson et al., In-context Learning and Induction Heads; pattern as in TransformerLens head_detector"


@probe(
    needs={"weight_at:previous"},
    title="Previous token",
    formula="mean_i p_i,i-1, the first token left out",
    unit="mass",
    bounds=(0, 1),
    higher="each token reads the token right before it",
    caveat="the second token's previous token is the first one, so a sink adds up to 1/(T-1)",
    source="Elhage et al., A Mathematical Framework for Transformer Circuits; as in TransformerLens head_detector",
)
def previous_token(stats: AttentionStats) -> Tensor:
    """Mean attention weight on the token right before the query.

    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0, 0], [0.8, 0.2, 0], [0.1, 0.6, 0.3]], previous_token.needs)
    >>> round(previous_token.measure(stats).values.item(), 4)
    0.7
    """
    return stats["weight_at:previous"].masked_fill(position_of(stats) == 0, torch.nan)


@probe(
    needs={"duplicate_mass", "duplicate_keys"},
    title="Duplicate token",
    formula="mean_i sum_{j: token_j = token_i, j != i} p_ij over queries whose token was seen before",
    unit="mass",
    bounds=(0, 1),
    higher="a token reads its own earlier occurrences",
    caveat="frequent words match many keys: on text compare with the same heads on shuffled tokens",
    source="Wang et al., Interpretability in the Wild, section 3; pattern as in TransformerLens head_detector",
    default_data="repeats",
)
def duplicate_token(stats: AttentionStats) -> Tensor:
    """Mean attention weight on other occurrences of the query's own token.

    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0, 0], [0.5, 0.5, 0], [0.7, 0.1, 0.2]], duplicate_token.needs, tokens=[7, 8, 7])
    >>> round(duplicate_token.measure(stats).values.item(), 4)  # only the third token was seen before
    0.7
    """
    return torch.where(stats["duplicate_keys"] > 0, stats["duplicate_mass"], torch.nan)


@probe(
    needs={"induction_mass", "induction_keys"},
    groups=("repeat",),
    title="Induction",
    formula="mean_i sum_{j: token_{j-1} = token_i} p_ij over queries i of the second copy",
    unit="mass",
    bounds=(0, 1),
    higher="each token of the second copy reads what followed it in the first copy",
    caveat="attention only: a head may look and write nothing; heads of chance level differ with length and vocabulary",
    source=INDUCTION,
    default_data="repeats",
)
def induction(stats: AttentionStats) -> Tensor:
    """Mean attention weight on the token after the query token's earlier occurrence, in repeated random tokens.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.eye(4)
    >>> weights[2] = torch.tensor([0.0, 0.9, 0.1, 0.0])  # token 7 again: reads the 8 that followed it
    >>> stats = stats_of(weights, induction.needs, tokens=[7, 8, 7, 8], groups=["rest", "rest", "repeat", "repeat"])
    >>> round(induction.measure(stats).values.item(), 4)  # the last query reads only itself
    0.45
    """
    counted = queries_in(stats, "repeat") & (stats["induction_keys"] > 0)
    return torch.where(counted, stats["induction_mass"], torch.nan)
