"""The model's own answers: what it generates, when it counts as answered, and the same hits as while decoding."""

import pytest
import torch
from headatlas.data.catalog import Dataset, load_data
from headatlas.data.encode import encode
from headatlas.data.errors import UserError
from headatlas.data.examples import Example
from headatlas.data.vocabulary import Vocabulary
from headatlas.probes.catalog import all_probes
from headatlas.probes.forward import observe
from headatlas.probes.loading import load
from headatlas.probes.own_answers import answered, recall, stop_ids

from .tiny import tiny


@pytest.fixture(scope="module")
def pico():
    return load("organism:pico-lm")


def asked(model, spec="secrets:lengths=128+160", examples=8):
    return load_data(spec, Vocabulary(model.tokenizer, model.config.vocab_size), examples=examples, seed=3)


def answers(model, data, how):
    return answered(model, data, how, bos="default", batch_tokens=512, report=lambda done: None)


def hits_while_decoding(model, ids, start, needle):
    """[layer, head] lists of copied tokens, step by step with a cache and eager attention, as the released code does."""
    model.network.set_attn_implementation("eager")
    hits = {}
    with torch.no_grad():
        out = model.network(torch.tensor([ids[: start - 1]]), use_cache=True)
        for place in range(start - 1, len(ids) - 1):  # the row of the query whose output is ids[place + 1]
            out = model.network(
                torch.tensor([[ids[place]]]),
                past_key_values=out.past_key_values,
                use_cache=True,
                output_attentions=True,
            )
            for layer, weights in enumerate(out.attentions):
                for head, best in enumerate(weights[0, :, 0].argmax(-1).tolist()):
                    if best in needle and ids[best] == ids[place + 1]:
                        hits.setdefault((layer, head), []).append(ids[best])
    model.network.set_attn_implementation("sdpa")
    return hits


def test_one_forward_finds_the_hits_of_decoding(pico):
    data = answers(pico, asked(pico), "own")
    batch = encode(data.examples, pico.tokenizer)
    one = all_probes()["retrieval"]
    scores = [one.measure(stats).values for stats in observe(pico, batch, one.needs)]
    needles = batch.group_mask("needle")
    copied = 0
    for index, example in enumerate(data.examples):
        ids = batch.ids_of(index)
        needle = needles[index].nonzero()[:, 0].tolist()
        hits = hits_while_decoding(pico, ids, len(ids) - len(example.answer_ids), needle)
        for layer, values in enumerate(scores):
            for head in range(8):
                found = hits.get((layer, head), [])
                expected = [len(set(found)) / 4, len(found) / 4]
                assert values[index, head].tolist() == pytest.approx(expected)
                copied += len(found)
    assert copied > 150  # eight prompts, eight heads, four words, and what they say beyond


def test_greedy_answers_are_those_of_a_plain_loop(pico):
    data = asked(pico, examples=3)
    made = answers(pico, data, "own")
    for before, after in zip(data.examples, made.examples, strict=True):
        ids = encode([Example(id="x", text=before.text)], pico.tokenizer).ids_of(0)
        said = []
        while len(said) < 50:
            with torch.no_grad():
                said.append(int(pico.network(torch.tensor([ids + said])).logits[0, -1].argmax()))
            if said[-1] in stop_ids(pico):
                said.pop()
                break
        assert after.answer_ids == tuple(said)
        assert pico.tokenizer.decode(said[:4]) == before.answer.strip()
        assert after.conditions["answered"] is True and after.conditions["recall"] == 1.0


def test_right_answers_alone_are_kept(pico):
    own, right = (
        answers(pico, asked(pico, "secrets:lengths=128,frames=far", examples=20), how) for how in ("own", "right")
    )
    assert len(own.examples) == 20
    assert 0 < len(right.examples) < 20
    assert {example.id for example in right.examples} == {one.id for one in own.examples if one.conditions["answered"]}
    assert own.digest != right.digest != asked(pico).digest


def test_recall_counts_words():
    assert recall("red blue red", "Red, blue and green") == pytest.approx(2 / 3)
    assert recall("red blue", "nothing of it") == 0


def test_what_cannot_be_answered_is_refused(pico):
    with pytest.raises(UserError, match="expected answers given, own, right; came 'mine'"):
        answers(pico, asked(pico), "mine")
    with pytest.raises(
        UserError, match="data set 'random' has no answers; --answers own takes one that asks something"
    ):
        answers(pico, asked(pico, "random", 2), "own")
    wrong = Dataset("made", "made", {}, (), (), [Example(id="a", text="the sky is", answer=" zzz")], "0")
    with pytest.raises(UserError, match="answers none of the 1 prompts of 'made'; use --answers own"):
        answers(pico, wrong, "right")


def test_a_model_without_a_tokenizer_answers_in_ids():
    model = tiny()
    data = load_data("repeats:length=20", Vocabulary(None, model.config.vocab_size), examples=2)
    examples = [Example(id=str(k), token_ids=one.token_ids, answer_ids=(1, 2)) for k, one in enumerate(data.examples)]
    made = answers(model, Dataset("made", "made", {}, (), (), examples, "0"), "own")
    assert all(1 <= len(example.answer_ids) <= 50 for example in made.examples)
