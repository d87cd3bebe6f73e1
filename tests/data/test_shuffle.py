from types import SimpleNamespace

import pytest
import torch
from headatlas.data.encode import encode
from headatlas.data.errors import DataError
from headatlas.data.examples import Example
from headatlas.data.shuffle import shuffle, special_ids
from headatlas.data.tokens import GROUPS, IGNORED, TokenBatch

from .tokenizers_offline import word_level

BODY = tuple(range(20, 60))


def ids(name, body=BODY, **options):
    return Example(id=name, token_ids=body, **options)


def moved(batch, **options):
    return shuffle(batch, **{"seed": 0, **options})


def test_bodies_are_permuted_and_all_else_stays():
    tokenizer = word_level(frame="bert")
    body = tuple([tokenizer.convert_tokens_to_ids(word) for word in ("the", "sky", "is", "blue", "red")] * 4)
    batch = encode([ids("a", body, spans={"needle": ((2, 5),)}), ids("b", body[:7])], tokenizer)
    got = moved(batch, fixed=special_ids(tokenizer))
    assert torch.equal(got.groups, batch.groups)
    assert torch.equal(got.query_mask, batch.query_mask)
    assert torch.equal(got.lengths, batch.lengths)
    for row, length in enumerate((22, 9)):
        before, after = batch.ids_of(row), got.ids_of(row)
        assert len(after) == length
        assert (after[0], after[-1]) == (before[0], before[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        assert sorted(after) == sorted(before)
        assert after != before
    assert torch.equal(got.input_ids[1, 9:], batch.input_ids[1, 9:])


def test_special_tokens_inside_a_prompt_stay():
    """Two texts in one prompt: the separator between them is no word."""
    tokenizer = word_level(frame="bert")
    a, b = (
        tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ("the sky is blue", "the sky is red")
    )
    batch = encode([ids("a", (*a, tokenizer.sep_token_id, *b))], tokenizer)
    got = moved(batch, fixed=special_ids(tokenizer)).ids_of(0)
    assert [place for place, one in enumerate(got) if one == tokenizer.sep_token_id] == [5, 10]


def test_an_unknown_word_is_a_word():
    tokenizer = word_level()
    assert tokenizer.unk_token_id not in special_ids(tokenizer)
    assert special_ids(None) == frozenset()
    shared = SimpleNamespace(all_special_ids=[7], bos_token_id=7, eos_token_id=7, unk_token_id=7)  # as GPT-2's
    assert special_ids(shared) == {7}


def test_the_order_depends_on_seed_and_example_alone():
    alone = moved(encode([ids("b")], None)).ids_of(0)
    beside = moved(encode([ids("a", BODY[:9]), ids("b")], None))
    assert beside.ids_of(1) == alone
    assert beside.ids_of(0) != alone[:9]
    assert moved(encode([ids("c")], None)).ids_of(0) != alone
    assert moved(encode([ids("b")], None), seed=1).ids_of(0) != alone


def test_every_order_is_as_likely():
    """Three tokens: each of the six orders about 100 times in 600 prompts (chi square of 5 degrees below 15)."""
    batch = encode([ids(f"e{k}", (7, 8, 9)) for k in range(600)], None)
    rows = [tuple(row) for row in moved(batch).input_ids.tolist()]
    counts = [rows.count(order) for order in set(rows)]
    assert len(counts) == 6
    assert sum((count - 100) ** 2 / 100 for count in counts) < 15


def test_answers_move_with_the_text_and_targets_follow():
    batch = encode([ids("a", BODY, answer_ids=(90, 91))], None)
    got = moved(batch)
    places = (batch.targets != IGNORED).nonzero()[:, 1].tolist()
    assert places == [39, 40]
    assert (got.targets != IGNORED).nonzero()[:, 1].tolist() == places
    assert got.targets[0, places].tolist() == got.input_ids[0, [40, 41]].tolist() != [90, 91]
    assert [GROUPS[one] for one in got.groups[0, 40:]] == ["answer", "answer"]


def test_what_a_chat_template_adds_stays():
    """Roles keep their places; what is said moves, across roles too."""
    tokenizer = word_level()
    said = ({"role": "user", "content": "the sky is blue"}, {"role": "assistant", "content": "the sky is red ."})
    batch = encode([Example(id="a", messages=said)], tokenizer)
    got = moved(batch, fixed=special_ids(tokenizer))
    template = batch.group_mask("template") | batch.group_mask("bos")
    assert int(template.sum()) >= 3
    assert torch.equal(got.input_ids[template], batch.input_ids[template])
    assert sorted(got.input_ids[~template].tolist()) == sorted(batch.input_ids[~template].tolist())
    assert not torch.equal(got.input_ids, batch.input_ids)


def test_without_ids_there_is_nothing_to_shuffle():
    with pytest.raises(DataError, match="only prompts of tokens can be shuffled"):
        moved(TokenBatch(("a",)))
