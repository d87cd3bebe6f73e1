"""Conversations with and without a template, documents by slot, and the labels a batch makes room for."""

import pytest
from headatlas.data.catalog import Vocabulary, load_data
from headatlas.data.encode import encode
from headatlas.data.errors import DataError, NoTemplateError
from headatlas.data.examples import Example
from headatlas.data.groups import GROUPS, LABELS, SLOTS, columns_for, family
from headatlas.data.organisms.vocabulary import build_tokenizer
from headatlas.data.prompts.chat import PASSAGES, REPLIES, SYSTEMS
from headatlas.data.prompts.slots import OPENING
from headatlas.data.tokens import TokenBatch

from .tokenizers_offline import byte_bpe

PICO = build_tokenizer()
VOCAB = Vocabulary(PICO, len(PICO))


def labelled(batch, row, label):
    """The ids of one example that carry a label, or one below it."""
    return batch.input_ids[row][batch.group_mask(label)[row]].tolist()


def test_with_and_without_the_template_the_words_and_their_labels_are_the_same():
    data = load_data("chat:lengths=96+160,distractors=2", VOCAB, examples=12, seed=3)
    batch = encode(data.examples, PICO)
    assert (data.strata, data.spec) == (("length", "template"), "chat:distractors=2,lengths=96+160,template=yes+no")
    for row in range(0, 12, 2):
        chat, plain = data.examples[row : row + 2]
        assert (chat.partner, plain.partner) == (plain.id, chat.id)
        assert chat.cluster == plain.cluster
        assert chat.conditions == {**plain.conditions, "template": "yes"}
        for label in ("system", "user", "assistant", "needle", "distractor", "answer"):
            assert labelled(batch, row, label) == labelled(batch, row + 1, label) != []
        assert len(labelled(batch, row, "template")) == 9  # 4 roles, 4 ends, and the role that is to answer
        assert batch.lengths[row] == batch.lengths[row + 1] + 9
        assert labelled(batch, row + 1, "template") == labelled(batch, row + 1, "rest") == []
        assert labelled(batch, row, "bos") == labelled(batch, row + 1, "bos") == [PICO.bos_token_id]
        assert len(labelled(batch, row, "distractor")) == 8
        assert labelled(batch, row, "needle") == labelled(batch, row, "answer")
        length = chat.conditions["length"]
        assert length - 16 < batch.lengths[row + 1] <= length
    assert [example.cluster for example in data.examples] == [f"chat/{k // 4}" for k in range(12)]


def test_chat_is_the_models_own_template():
    tokenizer = byte_bpe()
    data = load_data("chat:template=yes", Vocabulary(tokenizer, 3000), examples=1)
    (example,) = data.examples
    assert example.partner is None
    assert [message["role"] for message in example.messages] == ["system", "user", "assistant", "user"]
    text = tokenizer.decode(encode([example], tokenizer).input_ids[0])
    contents = [message["content"] for message in example.messages]
    turns = [f"<|{message['role']}|>{message['content']}</s>" for message in example.messages]
    assert text == "<s>" + "".join(turns) + "<|assistant|>" + example.answer
    assert contents[0] in SYSTEMS and contents[2] in REPLIES
    assert contents[1].startswith(PASSAGES)
    assert example.answer.strip() in contents[1]


def test_the_words_of_chat_are_whole_words_of_the_organisms():
    for text in (*SYSTEMS, *PASSAGES, *REPLIES, OPENING):
        words = text.replace(",", " ,").replace(".", " .").split()
        assert len(VOCAB.encode(text)) == len(words)


def test_chat_without_a_template_is_refused_in_one_line_and_plain_words_are_not():
    for tokenizer in (byte_bpe(template=None), None):
        with pytest.raises(
            NoTemplateError, match=r"^chat: expected a tokenizer with a chat template; .* chat:template=no$"
        ):
            load_data("chat", Vocabulary(tokenizer, 3000))
    plain = load_data("chat:template=no", Vocabulary(byte_bpe(template=None), 3000), examples=3)
    assert [example.conditions["template"] for example in plain.examples] == ["no"] * 3
    with pytest.raises(DataError, match=r"expected template of yes, no and 0 to 7 distractors; came maybe and 1"):
        load_data("chat:template=maybe", VOCAB)
    with pytest.raises(DataError, match=r"chat: length=20 leaves 19 tokens after 1 special ones; expected at least"):
        load_data("chat:lengths=20", VOCAB)


def test_chat_without_distractors_has_no_such_label():
    (example,) = load_data("chat:template=no,distractors=0", VOCAB, examples=1).examples
    assert set(example.spans) == {"system", "user", "assistant", "needle"}


@pytest.mark.parametrize("documents", [2, 5, 6])
def test_each_document_stands_in_each_slot_once(documents):
    data = load_data(f"slots:lengths=300,documents={documents}", VOCAB, examples=3 * documents, seed=2)
    batch = encode(data.examples, PICO)
    for first in range(0, 3 * documents, documents):
        rows = range(first, first + documents)
        group = data.examples[first : first + documents]
        assert [example.conditions["slot"] for example in group] == list(range(1, documents + 1))
        assert len({example.cluster for example in group}) == 1
        texts = {
            slot: [example.text[slice(*example.spans[slot][0])] for example in group] for slot in SLOTS[:documents]
        }
        for found in texts.values():
            assert sorted(found) == sorted(texts["slot1"])
            assert len(set(found)) == documents
        assert len({int(batch.lengths[row]) for row in rows}) == 1
        for row, example in zip(rows, group, strict=True):
            (start, end), (low, high) = (
                example.spans["needle"][0],
                example.spans[f"slot{example.conditions['slot']}"][0],
            )
            assert low < start < end < high
            assert example.text.count(example.answer) == 1 and example.text[start:end] == example.answer.strip()
            assert labelled(batch, row, "needle") == labelled(batch, row, "answer")
            assert 300 - 16 * documents < batch.lengths[row] <= 300
    assert {example.cluster for example in data.examples} == {"slots/0", "slots/1", "slots/2"}
    assert batch.has_group("slot2") and not (documents < 6 and batch.has_group("slot6"))


def test_the_first_token_is_in_no_slot():
    batch = encode(load_data("slots", VOCAB, examples=5).examples, PICO)
    names = [[batch.group_names[index] for index in row[:8]] for row in batch.groups]
    assert names == [["bos", *["user"] * 6, "slot1"]] * 5


def test_slots_refuse_what_there_are_no_labels_for():
    with pytest.raises(DataError, match="slots: expected 2 to 6 documents; came 7"):
        load_data("slots:documents=7", VOCAB)
    with pytest.raises(DataError, match=r"slots: length=50 leaves 49 tokens"):
        load_data("slots:lengths=50", VOCAB)


@pytest.mark.parametrize("spec", ["chat:lengths=96+128", "slots"])
def test_example_k_does_not_depend_on_the_number(spec):
    few, many = (load_data(spec, VOCAB, examples=count, seed=4) for count in (7, 20))
    assert many.examples[:7] == few.examples
    assert load_data(spec, VOCAB, examples=7, seed=5).digest != few.digest
    assert len({example.id for example in many.examples}) == 20


def test_a_batch_makes_room_for_the_labels_it_uses():
    assert columns_for({"rest", "needle"}) == GROUPS
    for used in ({"slot1"}, set(SLOTS), {"distractor", "subject", "image", "slot6"}):
        names = columns_for(used)
        assert len(names) == len(set(names)) == 16
        assert {*used, "rest", "answer", "padding"} <= set(names)
        assert list(names) == sorted(names, key=LABELS.index)
    assert columns_for(set(SLOTS)) == tuple(
        name for name in LABELS if name not in ("distractor", "subject", "repeat", "image", "image_sink", "other")
    )
    with pytest.raises(DataError, match=r"at most 16 token groups in a batch; came 22: rest, bos, .*Leave out some"):
        columns_for(LABELS)
    with pytest.raises(DataError, match="expected at most 16 token groups in a run; came 22"):
        TokenBatch(("e",), group_names=LABELS)


def test_slots_are_part_of_what_the_user_says():
    assert family("user") == ("user", "needle", "distractor", "subject", *SLOTS)
    example = Example(id="e", text="the sky is blue", spans={"user": ((0, 15),), "slot1": ((4, 7),)})
    batch = encode([example], byte_bpe())
    assert (
        batch.group_mask("user").sum()
        == batch.group_mask("slot1").sum() + batch.groups.eq(batch.group_names.index("user")).sum()
    )
    with pytest.raises(DataError, match=r"unknown token group 'slot7'\. Did you mean 'slot"):
        Example(id="e", text="a", spans={"slot7": ((0, 1),)})
