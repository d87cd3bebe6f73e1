"""Xiao et al., "Efficient Streaming Language Models with Attention Sinks": perplexity with and without sinks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ...data.errors import UserError
from ...data.examples import Example
from ...data.jsonl import digest_of
from ...data.reports import edit_link
from ...data.run import Run
from ..causal import prompts
from ..edit_run import EditPlan, carry_out
from ..edits.edit import Edit
from ..models import Model
from ..plan import Plan, frame_of
from ..progress import Report
from ..table import Setting, Table, perplexity


@dataclass(frozen=True, kw_only=True)
class Streaming(Setting):
    """The loss of the second half of each prompt, with a cache of half its tokens: `sinks` first ones and the last.

    A token sees the cache and itself, as in the released code.
    """

    sinks: int | None
    """None: every key."""

    def run(self, model: Model, data: str, *, examples: int, seed: int, store: Path, report: Report | None) -> Run:
        """Score the texts with all keys, then with the cache."""
        plan = halved(prompts(model, data, examples=examples, seed=seed, bos=self.bos)[0])
        base = carry_out(EditPlan(plan, said="unedited"), store, report=report)
        if self.sinks is None:
            return base
        edit = Edit("streaming", sinks=self.sinks, recent=plan.lengths[0] // 2 - self.sinks + 1)
        made = EditPlan(plan, [[edit]], [edit_link(base.id, "edited")], said=f"edited: {edit.spelled}")
        return carry_out(made, store, report=report)


def halved(plan: Plan) -> Plan:
    """The plan in which the second half of each prompt is the answer, so that its tokens alone are scored."""
    if len(set(plan.lengths)) > 1:
        raise UserError(f"expected texts of one length, as --data text:length=2048,file=book.txt gives; "
                        f"{plan.data.spec!r} has {min(plan.lengths)} to {max(plan.lengths)} tokens")  # fmt: skip
    made = []
    for one in plan.data.examples:
        ids, half = tuple(plan.encode([one]).ids_of(0)), plan.lengths[0] // 2
        made.append(Example(id=one.id, token_ids=ids[:half], answer_ids=ids[half:], cluster=one.cluster))
    data = replace(plan.data, examples=made, digest=digest_of(made))
    return replace(plan, data=data, frame=frame_of(plan.model, data, "none", 0), bos="none")


DATA, PAPER = "text:length=2048", "the first test book of PG-19, 65,000 tokens in one stream"


def cache(name: str, sinks: int | None) -> Streaming:
    """The setting of one number of sinks."""
    return Streaming(
        probe="answer_loss", data=DATA, paper_data=PAPER, quantities={name: perplexity}, sinks=sinks
    )  # fmt: skip


ALL, WINDOW, SINKS = "perplexity, all keys", "perplexity, window alone", "perplexity, 4 sinks and window"

TABLE = Table(
    name="streaming-perplexity",
    title="Perplexity beyond a cache of 1,024 tokens: the last tokens alone, or four sinks beside them",
    source="Xiao et al., Efficient Streaming Language Models with Attention Sinks, 0 + 1024 and 4 + 1020",
    settings=(cache(ALL, None), cache(WINDOW, 0), cache(SINKS, 4)),
    published={"llama-2-13b-hf": {WINDOW: 5158.07, SINKS: 5.40}},
    unlike="the cache is half of a text (1,024 tokens of the table's own), its second half is scored, and each text "
    "starts anew, where the paper reads one stream",
    examples=5,
    models=("meta-llama/Llama-2-13b-hf",),
    on_organism="headatlas reproduce streaming-perplexity organism:pico-lm --data text:length=256",
)
