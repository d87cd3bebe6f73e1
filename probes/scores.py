"""How well a model does on prompts: a few scores per example, from one forward with the answer forced.

With answers, the tokens that must say them are scored; a whole answer is right where each of its tokens is the most
likely one after the right tokens before it, which is what greedy decoding says too. Without answers, every token is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..data.errors import UserError, near_miss
from ..data.examples import Example
from ..data.tokens import IGNORED, TokenBatch
from .forward import Outputs, edited
from .measurement import Measurement
from .plan import Plan

BLOCK = 2**25
"""Logits that are scored at once: 128 MiB in float32."""


@dataclass(frozen=True)
class Scored:
    """What scores are read from: logits of the tokens that are judged, and what should follow them.

    Logits stay where they are and are read a block of tokens at a time; only the numbers come to the CPU.
    """

    logits: Tensor
    """[batch, row, vocabulary], on any device."""
    targets: Tensor
    """[batch, row], `IGNORED` where nothing is judged, on the CPU."""
    wrong: Tensor | None
    """[batch, choice], the first tokens of the wrong answers; None where some example has none."""

    @property
    def judged(self) -> Tensor:
        """bool [batch, row]."""
        return self.targets != IGNORED

    def mean(self, values: Tensor) -> Tensor:
        """[batch], the mean over the judged tokens of each example."""
        return torch.where(self.judged, values, 0.0).sum(1) / self.judged.sum(1)

    def each(self, read: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """[batch, row] of read(logits [token, vocabulary] in float32, targets [token]) -> [token], block by block."""
        logits, targets = self.logits.flatten(0, 1), self.targets.flatten().to(self.logits.device)
        step = max(1, BLOCK // logits.shape[1])
        blocks = zip(logits.split(step), targets.split(step), strict=True)
        return torch.cat([read(some.float(), wanted) for some, wanted in blocks]).cpu().view_as(self.targets)

    def loss(self) -> Tensor:
        """[batch], mean negative log-likelihood of the targets in nats."""
        return self.mean(self.each(partial(cross_entropy, ignore_index=IGNORED, reduction="none")))

    def entropy(self) -> Tensor:
        """[batch], mean entropy in nats of what may follow, at the judged tokens."""

        def read(logits: Tensor, targets: Tensor) -> Tensor:
            log = logits.log_softmax(-1)
            return -(log.exp() * log).nan_to_num(0.0).sum(-1)

        return self.mean(self.each(read))

    @cached_property
    def likeliest(self) -> Tensor:
        """bool [batch, row], True where the target is the most likely token."""
        return self.each(lambda logits, targets: logits.argmax(-1) == targets)

    def exact(self) -> Tensor:
        """[batch], 1 where every target is the most likely token."""
        return (self.likeliest | ~self.judged).all(1).float()

    def matched(self) -> Tensor:
        """[batch], the share of targets that are the most likely token."""
        return self.mean(self.likeliest.float())

    def difference(self) -> Tensor:
        """[batch], logit of the answer's first token less the largest of the wrong answers'."""
        assert self.wrong is not None
        row, every = self.judged.float().argmax(1), torch.arange(len(self.targets))
        at = self.logits[every.to(self.logits.device), row.to(self.logits.device)].float()
        asked = torch.cat([self.targets[every, row][:, None], self.wrong], dim=1).to(at.device)
        first, *wrong = at.gather(1, asked).cpu().unbind(1)
        return first - torch.stack(wrong).amax(0)


def _card(name: str, title: str, formula: str, unit: str, higher: str, read: Any, **options: Any) -> Measurement:
    said = {
        "bounds": (0, None),
        "caveat": "with the answer forced: after a wrong token the model might go elsewhere",
        "source": "as in the tasks of Wang et al., Interpretability in the Wild (IOI); Wu et al., Retrieval Head",
    }
    return Measurement(
        name=name, function=read, title=title, summary=title, formula=formula, unit=unit, higher=higher, family="score",
        **(said | options),
    )  # fmt: skip


SCORES = {
    one.name: one
    for one in (
        _card(
            "exact_match", "Exact match", "1[argmax = target at every token of the answer]", "share of examples",
            "the model says the whole answer", Scored.exact, bounds=(0, 1), binary=True, groups=("answer",),
        ),
        _card(
            "answer_loss", "Answer loss", "mean over the answer's tokens of -ln p(target)", "nats",
            "the answer surprises the model", Scored.loss, groups=("answer",),
        ),
        _card(
            "logit_difference", "Logit difference", "logit(answer) - max over wrong answers of logit, first tokens",
            "logits", "the model prefers the answer to every wrong one", Scored.difference, bounds=(None, None),
            groups=("answer",), caveat="choices that begin with the same token are not told apart: 0",
        ),
        _card(
            "choice", "Choice", "1[logit(answer) > max over wrong answers of logit], first tokens", "share of examples",
            "the model picks the answer among the choices (label words, options)",
            lambda of: (of.difference() > 0).float(), bounds=(0, 1), binary=True, groups=("answer",),
            caveat="choices that begin with the same token are not told apart: 0",
        ),
        _card(
            "answer_entropy", "Answer entropy", "mean over the answer's tokens of -sum_v p(v) ln p(v)", "nats",
            "the model is unsure what to say", Scored.entropy, groups=("answer",),
            source="Han et al., ZeroTuning: what gamma is chosen by without labels",
            caveat="low where the model is surely wrong, too; from the second token on the right answer is before it",
        ),
        _card(
            "repeat_match", "Repeat match", "share of repeated tokens that are the argmax", "share of tokens",
            "the model goes on with what stood there the first time", Scored.matched, bounds=(0, 1),
            groups=("repeat",), caveat="the first repeated token counts too, and nothing tells it",
        ),
        _card(
            "repeat_loss", "Repeat loss", "mean over repeated tokens of -ln p(token)", "nats",
            "what was said before surprises the model", Scored.loss, groups=("repeat",),
            caveat="the first repeated token counts too, and nothing tells it",
        ),
        _card(
            "token_loss", "Token loss", "mean over all tokens but the first of -ln p(token)", "nats",
            "the text surprises the model", Scored.loss, caveat="special tokens of the frame count too",
        ),
    )
}  # fmt: skip
"""Every score by name."""
KEPT = _card(
    "rows_kept",
    "Rows kept as they were",
    "rows without another key to take the weight / rows of the edited heads",
    "share of rows",
    "more of the edited heads' rows could not be edited",
    None,
    bounds=(0, 1),
    caveat="a row is a head and a token; such a row sees no key that may receive, as the first token sees itself alone",
    source="no paper says what becomes of them",
)
"""No score of a model: what an edit could not do."""
ANSWERING = frozenset(name for name, one in SCORES.items() if "answer" in one.groups)


def scores_for(examples: Sequence[Example]) -> tuple[str, ...]:
    """The scores that prompts can have, the headline first."""
    if all("repeat" in one.spans for one in examples):
        return ("repeat_match", "repeat_loss")
    if not all(one.answer or one.answer_ids for one in examples):
        return ("token_loss",)
    choosing = all(one.others for one in examples)
    return ("exact_match", "answer_loss", "answer_entropy", *(("logit_difference", "choice") if choosing else ()))


def check_score(name: str | None, plan: Plan) -> str:
    """The score to search by, by default the first that these prompts have; one they do not have is refused."""
    known = scores_for(plan.data.examples)
    if name is None:
        return known[0]
    if name not in SCORES:
        raise UserError(f"unknown score {name!r}.{near_miss(name, SCORES)} Expected one of {', '.join(SCORES)}")
    if name not in known:
        lack = "have no answers" if known == ("token_loss",) else "have no wrong answers beside the answers"
        lack = "have answers, which are scored" if name == "token_loss" else lack
        raise UserError(f"score {name}: the prompts of {plan.data.spec!r} {lack}; expected one of {', '.join(known)}")
    return name


def scored(
    plan: Plan,
    examples: Sequence[Example],
    edits: Sequence[Any] = (),
    *,
    names: Sequence[str],
    means: Outputs | None = None,
    partner: Outputs | None = None,
) -> dict[str, Tensor]:
    """Score -> [batch] of one forward over these prompts, with some edits in force; `KEPT` beside them if named."""
    batch = plan.encode(examples)
    targets = batch.targets
    if not set(names) & ANSWERING:
        targets = _next_tokens(batch, batch.group_mask("repeat") if names[0].startswith("repeat") else batch.query_mask)
    assert targets is not None
    rows = (targets != IGNORED).any(0).nonzero().squeeze(1)
    network = plan.model.network
    if "logits_to_keep" in inspect.signature(network.forward).parameters:
        batch = replace(batch, extra={**batch.extra, "logits_to_keep": rows})
    kept = torch.zeros(len(examples), 2) if KEPT.name in names else None
    output = edited(
        plan.model, batch, edits, means=means, partner=partner, every_token=False, may_lack=plan.data.groups, kept=kept
    )
    logits = output.logits if output.logits.shape[1] == len(rows) else output.logits[:, rows]
    wrong = _wrong_tokens(plan, examples) if {"logit_difference", "choice"} & set(names) else None
    read = Scored(logits, targets[:, rows].cpu(), None if wrong is None else wrong.cpu())
    found = {name: SCORES[name].function(read) for name in names if name in SCORES}
    return found if kept is None else found | {KEPT.name: kept[:, 0] / kept[:, 1]}


def _next_tokens(batch: TokenBatch, judged: Tensor | None) -> Tensor:
    """[batch, key], the token after each one where that is `judged` [batch, key], elsewhere `IGNORED`."""
    assert batch.input_ids is not None and judged is not None
    following = batch.input_ids[:, 1:].masked_fill(~judged[:, 1:], IGNORED)
    return torch.nn.functional.pad(following, (0, 1), value=IGNORED)


def _wrong_tokens(plan: Plan, examples: Sequence[Example]) -> Tensor:
    """[batch, choice], the first token of each wrong answer, as it reads after the prompt; the last stands for more."""
    columns = []
    for index in range(max(len(one.others) for one in examples)):
        said = [one.others[min(index, len(one.others) - 1)] for one in examples]
        made = [replace(one, answer=word, answer_ids=None) for one, word in zip(examples, said, strict=True)]
        other = plan.encode(made).targets
        assert other is not None
        columns.append(other.gather(1, (other != IGNORED).float().argmax(1, keepdim=True)))
    return torch.cat(columns, dim=1)
