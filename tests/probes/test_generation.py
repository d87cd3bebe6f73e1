"""Edited generation with a cache against edited forwards of every prompt alone, without padding and without a cache."""

from dataclasses import replace

import pytest
import torch
from headatlas.data.errors import UserError
from headatlas.data.tokens import GROUPS
from headatlas.kernels.sdpa import attention_output
from headatlas.probes.batching import batch as batch_of
from headatlas.probes.causal import prompts
from headatlas.probes.edits.edit import Edit
from headatlas.probes.edits.editor import Editor
from headatlas.probes.edits.kind import all_kinds
from headatlas.probes.forward import edited, head_outputs, observe
from headatlas.probes.generation import generate
from headatlas.probes.loading import load
from headatlas.probes.own_answers import continued
from headatlas.probes.scores import scored

from .architectures import ARCHITECTURES
from .test_edits import EDITS, HEADS
from .tiny import labelled, tiny

NAMES = ("llama", "mistral", "gemma2", "gpt_oss", "gpt2", "qwen3")
LENGTHS = (21, 16)
STEPS = 4
PROMPT_ONLY = ("act", "resample")
STEPPED = {name: edit for name, edit in EDITS.items() if edit.kind not in PROMPT_ONLY} | {
    "block the answer": Edit("block", HEADS, from_group="answer"),
    "boost first": Edit("boost", HEADS, from_group="first", amount=0.2),
    "two": [Edit("mask", HEADS, sinks=1, recent=4), Edit("scale", ["L0H1"], amount=0.5)],
}
SPANS = (("needle", slice(4, 9)), ("user", slice(12, 15)))


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return load((ARCHITECTURES[request.param].build(), None))


def _listed(edits):
    return edits if isinstance(edits, list) else [edits]


def _padded(model, seed=3):
    """Two prompts of different lengths, padded on the right."""
    ids = torch.randint(5, 90, (2, LENGTHS[0]), generator=torch.Generator().manual_seed(seed))
    real = torch.arange(LENGTHS[0])[None] < torch.tensor(LENGTHS)[:, None]
    return labelled(model, ids.masked_fill(~real, 0), dict(SPANS), attention_mask=real)


def _alone(model, batch, row, said):
    """One prompt of a batch and what was said, without padding."""
    ids, length = batch.input_ids[row, : LENGTHS[row]].tolist(), LENGTHS[row]
    groups = batch.groups[row, :length].tolist() + [GROUPS.index("answer")] * len(said)
    made = batch_of(
        model,
        torch.tensor([ids + list(said)]),
        groups=torch.tensor([groups], dtype=torch.int8),
        group_names=GROUPS,
    )
    return replace(made, example_ids=(batch.example_ids[row],))


def _agree(found, expected, edits=()):
    """Beside centred keys a bias of -1000 leaves a float32 logit five digits."""
    within = 3e-5 if any(one.kind == "block" for one in edits) else 1e-5
    assert (found - expected).abs().max() <= within * expected.abs().max()


def _beside(model, edits):
    """Means and partners for edits that need them."""
    partner = head_outputs(model, _padded(model, 4)) if {one.kind for one in edits} & {"mean", "resample"} else {}
    return {place: value.mean((0, 2)) for place, value in partner.items()}, partner


def _all_labels(edits):
    """An edit of labels that the first full forward does not have yet does nothing in it."""
    return [one for one in edits if "answer" not in (one.from_group, one.to_group)]


@pytest.mark.parametrize("edits", STEPPED.values(), ids=STEPPED.keys())
def test_generation_with_a_cache_is_full_edited_forwards_at_every_step(model, edits):
    edits, batch = _listed(edits), _padded(model)
    means, _ = _beside(model, edits)
    found = generate(model, batch, edits, max_new_tokens=STEPS, stop=(), means=means, keep_logits=True)
    for row in range(2):
        said = []
        for step in range(STEPS):
            now = edits if step else _all_labels(edits)
            logits = edited(model, _alone(model, batch, row, said), now, means=means).logits[0, -1]
            _agree(found.logits[row, step], logits, edits)
            said.append(int(logits.argmax()))
        assert found.responses[row] == tuple(said)


@pytest.mark.parametrize("how", ["decode", "prefill", "decode_last"])
@pytest.mark.parametrize("edits", (EDITS | STEPPED).values(), ids=(EDITS | STEPPED).keys())
def test_a_phase_edits_its_rows_alone(model, edits, how, monkeypatch):
    phase, batch = how.split("_")[0], _padded(model)
    edits = [replace(one, phase=phase) for one in _listed(edits)]
    if phase == "decode" and edits[0].kind in PROMPT_ONLY:
        pytest.skip("refused, see test_what_cannot_be_generated_is_refused")
    means, partner = _beside(model, edits)
    options = {"means": means, "partner": partner, "decode_last": how == "decode_last"}
    found = generate(model, batch, edits, max_new_tokens=STEPS, stop=(), keep_logits=True, **options)
    if how == "decode":
        _agree(found.logits[:, 0], generate(model, batch, max_new_tokens=1, keep_logits=True).logits[:, 0])
    for row, said in enumerate(found.responses):
        start = LENGTHS[row] - (how == "decode_last")
        mine = {place: value[row : row + 1, :, :start] for place, value in partner.items()}
        with monkeypatch.context() as patch:
            patch.setattr(Editor, "apply", _of_rows(Editor.apply, start, phase))
            now = [replace(one, phase="both") for one in edits]
            if phase == "prefill":
                now = _all_labels(now)
            whole = edited(model, _alone(model, batch, row, said), now, means=means, partner=mine).logits[0]
        expected = whole[LENGTHS[row] - 1 : -1]
        _agree(found.logits[row], expected, edits)
        assert tuple(expected.argmax(-1).tolist()) == said


def _of_rows(apply, start, phase):
    """The edit of the prompt alone, as if nothing followed; or of all rows from `start` on."""

    def edited_rows(self, call, inputs, edits, statistics):
        plain, _ = attention_output(inputs)
        if phase == "prefill":
            made, _ = apply(self, call, _prompt(inputs, start), edits, None)
            return torch.cat([made, plain[:, :, start:]], dim=2), {}
        made, _ = apply(self, call, inputs, edits, None)
        return torch.cat([plain[:, :, :start], made[:, :, start:]], dim=2), {}

    return edited_rows


def _prompt(inputs, length):
    """A call of the first tokens alone."""
    view, cut = inputs.visibility, slice(None, length)
    return replace(
        inputs,
        **{name: getattr(inputs, name)[:, :, cut] for name in ("query", "key", "value")},
        **{
            name: getattr(inputs, name)[:, cut] for name in ("key_groups", "query_groups", "key_tokens", "query_tokens")
        },
        visibility=replace(view, query_mask=view.query_mask[:, cut]),
    )


def test_rows_that_say_the_answer_are_the_same_while_generating_and_when_it_is_given(model):
    edits, batch = [Edit("force", HEADS, from_group="answering", to_group="needle")], _padded(model)
    found = generate(model, batch, edits, max_new_tokens=STEPS, stop=(), keep_logits=True)
    plain = generate(model, batch, max_new_tokens=STEPS, stop=(), keep_logits=True)
    assert (found.logits[:, 0] - plain.logits[:, 0]).abs().max() > 1e-4  # the prompt's last token says the first one
    for row, said in enumerate(found.responses):
        given = _alone(model, batch, row, said)
        logits = edited(model, given, edits).logits[0, given.answering()[0]]
        _agree(found.logits[row], logits)


def test_every_kind_is_tried():
    assert {one.kind for edits in STEPPED.values() for one in _listed(edits)} | {*PROMPT_ONLY, "streaming"} == set(
        all_kinds()
    )


def test_prompts_with_heads_of_their_own_go_on_as_if_alone():
    model = tiny()
    batch = _padded(model)
    sets = {"0": ["L0H1"], "1": ["L1H0", "L1H3"]}
    edit = Edit("block", from_group="needle", by_prompt=sets)
    found = generate(model, batch, [edit], max_new_tokens=STEPS, stop=(), keep_logits=True)
    for row, heads in enumerate(sets.values()):
        mine = Edit("block", heads, from_group="needle")
        alone = generate(model, batch, [mine], max_new_tokens=STEPS, stop=(), keep_logits=True)
        _agree(found.logits[row], alone.logits[row])
        assert found.responses[row] == alone.responses[row]


def test_a_prompt_ends_at_a_stop_and_the_others_go_on():
    model = tiny()
    batch = _padded(model)
    free = generate(model, batch, max_new_tokens=STEPS, stop=())
    stop = free.responses[0][1]
    found = generate(model, batch, max_new_tokens=STEPS, stop={stop})
    expected = [row[: row.index(stop)] if stop in row else row for row in free.responses]
    assert found.responses == expected and len(found.responses[1]) > len(found.responses[0])
    real = found.batch.query_mask
    assert real.sum(1).tolist()[0] == LENGTHS[0] + len(expected[0]) + 1, "the stop is a token, what follows is padding"


def test_what_cannot_be_generated_is_refused():
    model = tiny()
    batch = _padded(model)
    for edit in (Edit("act"), Edit("resample")):
        with pytest.raises(UserError, match=f"edit {edit.kind} can't hold while decoding: .*; give it phase='prefill'"):
            generate(model, batch, [edit])
    with pytest.raises(UserError, match="a forward over whole prompts has no decode step; use"):
        edited(model, batch, [Edit("zero", phase="decode")])
    with pytest.raises(UserError, match=r"has 160 positions; the longest prompt has 21 tokens, so ask for at most 140"):
        generate(model, batch, max_new_tokens=150, stop=())
    with pytest.raises(UserError, match="expected max_new_tokens of 1 or more, came 0"):
        generate(model, batch, max_new_tokens=0)
    with pytest.raises(UserError, match="no attention statistic is called 'entropie'; there are visible_keys"):
        observe(model, batch, {"entropie"})
    partner = head_outputs(model, labelled(model, batch.input_ids[:, :9]))
    with pytest.raises(UserError, match=r"partner: expected outputs .* of \[2, 21\] tokens"):
        generate(model, batch, [Edit("resample", phase="prefill")], partner=partner)
    with pytest.raises(UserError, match="expected prompts of tokens alone; came pixel_values"):
        generate(model, replace(batch, extra={"pixel_values": batch.input_ids}))
    with pytest.raises(UserError, match="can't generate here: expected a decoder alone, with a cache"):
        generate(load((ARCHITECTURES["bert"].build(), None)), batch)


def _asked(model, spec, examples):
    """Prompts to go on with, their answers in ids, and which of them are right when the answer is forced."""
    plan, _ = prompts(model, spec, examples=examples, seed=1, bos="default")
    exact = scored(plan, plan.data.examples, names=("exact_match",))["exact_match"].tolist()
    answers = [tuple(row[row >= 0].tolist()) for row in plan.encode(plan.data.examples).targets]
    return continued(model, plan.data.examples, bos="default"), answers, exact


def _right(said, answers):
    return [float(one == answer) for one, answer in zip(said, answers, strict=True)]


@pytest.mark.parametrize(
    ("spec", "examples", "least", "most"),
    [("secrets:lengths=128", 10, 8, 10), ("secrets:lengths=128,frames=far", 20, 1, 19)],
)
def test_greedy_answers_are_right_where_the_forced_answer_scores_an_exact_match(spec, examples, least, most):
    model = load("organism:pico-lm")
    batch, answers, exact = _asked(model, spec, examples)
    found = generate(model, batch, max_new_tokens=len(answers[0]), stop=()).responses
    assert _right(found, answers) == exact and least <= sum(exact) <= most


def test_heads_that_retrieve_can_be_masked_while_decoding():
    """Uniform attention in decode steps, after or from the last prompt token on: Wu et al., Retrieval Head."""
    model = load("organism:pico-lm")
    batch, answers, _ = _asked(model, "secrets:lengths=128", 10)
    masked = [Edit("uniform", [f"L1H{head}" for head in range(8)], phase="decode")]
    for last, first in ((False, 10), (True, 0)):
        said = generate(model, batch, masked, max_new_tokens=len(answers[0]), stop=(), decode_last=last).responses
        assert sum(_right(said, answers)) == 0
        assert sum(one[0] == answer[0] for one, answer in zip(said, answers, strict=True)) == first
