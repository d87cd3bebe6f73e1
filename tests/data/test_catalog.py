import sys
import types

import numpy as np
import pytest
import torch
from headatlas.data.catalog import Vocabulary, all_datasets, load_data, parse_data
from headatlas.data.encode import encode
from headatlas.data.errors import DataError
from headatlas.data.examples import Example
from headatlas.data.jsonl import write_examples
from headatlas.data.organisms.vocabulary import build_tokenizer
from headatlas.data.prompts.text import shipped

from .tokenizers_offline import byte_bpe, word_level


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("repeats", ("repeats", {})),
        ("repeats:length=64+128,copies=3", ("repeats", {"length": (64, 128), "copies": 3})),
        ("repeats:lengths=64", ("repeats", {"length": (64,)})),
        (
            "needle:lengths=512+1024,depths=0+0.5+1",
            ("needle", {"lengths": (512, 1024), "depths": (0.0, 0.5, 1.0)}),
        ),
        ("needle:length=512,depth=1", ("needle", {"lengths": (512,), "depths": (1.0,)})),
        ("text:domain=essays", ("text", {"domain": ("essays",)})),
        ("a/b.jsonl", ("jsonl", {"file": "a/b.jsonl"})),
        ("a/b.txt", ("text", {"file": "a/b.txt"})),
        ("b.txt:length=9", ("text", {"file": "b.txt", "length": (9,)})),
        ("text:file=b.txt,length=9", ("text", {"file": "b.txt", "length": (9,)})),
        ("hf:org/set:train:text", ("hf", {"dataset": "org/set", "split": "train", "column": "text"})),
        ("hf:s:t:c:length=8", ("hf", {"dataset": "s", "split": "t", "column": "c", "length": (8,)})),
    ],
)
def test_parse(spec, expected):
    assert parse_data(spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("neddle", "unknown data set 'neddle'. Did you mean 'needle'\\? Expected one of .*or a path"),
        ("repeats:lenght=3", "has no parameter 'lenght'. Did you mean 'length'\\? It takes length, copies"),
        ("repeats:length", "expected key=value after the colon; came 'length'"),
        ("repeats:length=a", "repeats:length: expected a whole number; came 'a'"),
        ("repeats:length=64+64", "expected different values; one comes twice"),
        ("repeats:copies=2+3", r"expected a whole number; came '2\+3'. One value alone"),
        ("repeats:length=1,length=2", r"'length' is given twice; write a grid as length=a\+b"),
        ("a.jsonl:length=3", "a .jsonl file takes no parameters; came length"),
        ("hf:name:train", "expected hf:NAME:SPLIT:COLUMN"),
        ("hf:n:s:c:depth=3", "data set 'hf' has no parameter 'depth'"),
    ],
)
def test_parse_errors(spec, message):
    with pytest.raises(DataError, match=message):
        parse_data(spec)


@pytest.mark.parametrize("bos", ["default", "none", "force"])
@pytest.mark.parametrize("frame", ["bos", "bert", "none"])
@pytest.mark.parametrize(
    "spec", ["repeats:length=16+33", "random:length=5+16", "text:length=16+64", "needle:lengths=300+512,depths=0+1"]
)
def test_lengths_count_every_token(spec, frame, bos):
    tokenizer = byte_bpe(frame=frame)
    vocab = Vocabulary(tokenizer, len(tokenizer), bos=bos)
    data = load_data(spec, vocab, examples=6, seed=1)
    batch = encode(data.examples, tokenizer, bos=bos)
    assert batch.lengths.tolist() == [example.conditions["length"] for example in data.examples]


@pytest.mark.parametrize(
    "spec", ["repeats:length=16+32", "random", "text:length=32+64", "needle:lengths=300,depths=0+1"]
)
def test_example_k_does_not_depend_on_the_number(spec):
    vocab = Vocabulary(byte_bpe(), 3000)
    few, many = (load_data(spec, vocab, examples=count, seed=4) for count in (5, 12))
    assert many.examples[:5] == few.examples
    assert load_data(spec, vocab, examples=5, seed=4).digest == few.digest
    assert load_data(spec, vocab, examples=5, seed=5).digest != few.digest
    assert len({example.id for example in many.examples}) == 12


def test_the_grid_is_spread_evenly():
    vocab = Vocabulary(byte_bpe(), 3000)
    data = load_data("needle:lengths=300+400,depths=0+0.5+1", vocab, examples=14, seed=0)
    cells = [(example.conditions["length"], example.conditions["depth"]) for example in data.examples]
    grid = [(300, 0.0), (400, 0.0), (300, 0.5), (400, 0.5), (300, 1.0), (400, 1.0)]
    assert cells == grid * 2 + grid[:2]
    assert [example.cluster for example in data.examples] == ["oduya/0"] * 6 + ["brass-key/1"] * 6 + ["kite-race/2"] * 2
    assert data.spec == "needle:depths=0+0.5+1,distractors=1,lengths=300+400"
    assert (data.strata, data.name) == (("length", "depth"), "needle")
    params = parse_data(data.spec)[1]
    assert params == {key: value for key, value in data.params.items() if value is not None}


def test_repeats_repeat():
    vocab = Vocabulary(None, 100)
    data = load_data("repeats:length=40", vocab, examples=3)
    for example in data.examples:
        ids = np.array(example.token_ids)
        assert len(set(ids[:20].tolist())) == 20
        assert (ids[:20] == ids[20:]).all()
        assert example.spans == {"repeat": ((20, 40),)}
    assert data.examples[0].token_ids != data.examples[1].token_ids


def test_repeats_go_on_for_what_is_left_and_draw_again_where_they_must():
    data = load_data("repeats:length=41,copies=3", Vocabulary(None, 5), examples=1)
    ids = np.array(data.examples[0].token_ids)
    assert (ids[13:] == ids[:-13]).all()
    assert data.examples[0].conditions == {"length": 41, "period": 13}
    assert data.examples[0].spans["repeat"] == ((13, 41),)


def test_random_ids_are_plain():
    tokenizer = word_level()
    vocab = Vocabulary(tokenizer, 1000)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    assert not special & set(vocab.plain_ids.tolist())
    assert max(vocab.plain_ids) < len(tokenizer)
    drawn = {one for example in load_data("random", vocab, examples=4).examples for one in example.token_ids}
    assert drawn == set(vocab.plain_ids.tolist())
    assert Vocabulary(None, 7).plain_ids.tolist() == list(range(7))


def test_needle_spans_hold_the_words_of_the_answer():
    tokenizer = byte_bpe()
    vocab = Vocabulary(tokenizer, 3000)
    data = load_data("needle:lengths=400,depths=0+0.5+1,distractors=2", vocab, examples=9, seed=0)
    for example in data.examples:
        ((start, end),) = example.spans["needle"]
        assert example.token_ids[start:end] == example.answer_ids
        assert vocab.decode(example.answer_ids) == example.answer
        assert vocab.decode(example.token_ids[start - 3 : end + 1]).endswith(f"{example.answer}.")
        others = [vocab.decode(example.token_ids[a:b]) for a, b in example.spans["distractor"]]
        assert len(set(others)) == 2
        assert example.answer not in others
        assert vocab.decode(example.token_ids).rstrip().endswith("?\nAnswer:")
    batch = encode(data.examples, tokenizer)
    needle, answer = batch.group_mask("needle"), batch.group_mask("answer")
    assert (needle.sum(1) == answer.sum(1)).all()
    assert (batch.input_ids[needle] == batch.input_ids[answer]).all()
    labelled = batch.group_mask("user") | answer
    labelled[:, 0] = True
    assert labelled.all()


def test_needle_depth():
    vocab = Vocabulary(byte_bpe(), 3000)
    data = load_data("needle:lengths=2000,depths=0+0.25+0.5+0.75+1", vocab, examples=10, seed=2)
    for example in data.examples:
        depth, placed = example.conditions["depth"], example.conditions["placed"]
        assert depth - 0.06 < placed <= depth
        text = vocab.decode(example.token_ids[: example.spans["needle"][0][0]])
        before = text.rsplit(". ", 1)[0]
        assert depth == 0 or before
    starts = [example.spans["needle"][0][0] for example in data.examples[:5]]
    assert starts == sorted(starts)


def test_needle_is_put_between_sentences():
    vocab = Vocabulary(byte_bpe(), 3000)
    for example in load_data("needle:lengths=600,depths=0.3+0.8", vocab, examples=8, seed=3).examples:
        ((start, _),) = example.spans["needle"]
        before = vocab.decode(example.token_ids[:start])
        sentence = max(before.rfind(mark) for mark in (". ", "? ", "! ", ".\u201d "))
        assert before[sentence + 2 :].split()[0] in ("The", "A")


def test_too_little_room_says_how_much():
    vocab = Vocabulary(byte_bpe(), 3000)
    with pytest.raises(DataError, match=r"length=64 leaves 63 tokens after 1 special ones; expected at least \d+"):
        load_data("needle:lengths=64", vocab, examples=1)
    with pytest.raises(DataError, match=r"expected at least 4\. Ask for length=5 or more"):
        load_data("repeats:length=4", vocab, examples=1)
    with pytest.raises(DataError, match=r"the haystack has \d+ tokens and \d+ are needed.*needle:haystack=FILE.txt"):
        load_data("needle:lengths=99999", vocab, examples=1)
    with pytest.raises(DataError, match=r"expected depths in 0\.\.1"):
        load_data("needle:depths=2", vocab, examples=1)
    with pytest.raises(DataError, match="at least one example; came examples=0"):
        load_data("random", vocab, examples=0)


def test_text_windows_do_not_overlap_and_keep_the_words():
    vocab = Vocabulary(byte_bpe(), 3000)
    data = load_data("text:length=64,domain=essays", vocab, examples=100, seed=0)
    assert len({example.cluster for example in data.examples}) == 100
    ordered = sorted(data.examples, key=lambda example: int(example.id.rpartition("-")[2]))
    numbers = [int(example.id.rpartition("-")[2]) for example in ordered]
    whole = vocab.encode(shipped(("essays",))["essays"])
    for number, example in zip(numbers, ordered):
        assert list(example.token_ids) == whole[number * 63 : (number + 1) * 63]
    assert numbers != list(range(100))


def test_text_from_a_file_and_too_few_windows(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("the sky is blue . " * 10)
    vocab = Vocabulary(word_level(), 40)
    data = load_data(f"{path}:length=11", vocab, examples=5)
    assert {example.conditions["domain"] for example in data.examples} == {"notes"}
    assert data.name == "text"
    with pytest.raises(
        DataError, match=r"text: this text has 5 windows of 11 tokens; 6 examples over 1 lengths need more"
    ):
        load_data(f"{path}:length=11", vocab, examples=6)
    path.write_text("  ")
    with pytest.raises(DataError, match="is blank"):
        load_data(str(path), vocab)
    with pytest.raises(DataError, match=r"absent\.txt cannot be read: expected a text file in UTF-8"):
        load_data("absent.txt", vocab)
    with pytest.raises(DataError, match="which needs a tokenizer; use `repeats` or `random`"):
        load_data("text", Vocabulary(None, 9))
    with pytest.raises(DataError, match=r"unknown domain 'essay'. Did you mean 'essays'"):
        load_data("text:domain=essay", vocab)


def test_a_jsonl_file_is_a_data_set(tmp_path):
    mine = [
        Example(id="a", text="the sky", spans={"subject": ((4, 7),)}, answer=" is"),
        Example(id="b", messages=({"role": "user", "content": "hi"},)),
    ]
    write_examples(tmp_path / "mine.jsonl", mine)
    data = load_data(str(tmp_path / "mine.jsonl"), Vocabulary(None, 9))
    assert (data.name, data.examples, data.strata) == ("mine", mine, ("length",))
    assert data.groups == ("answer", "subject", "user")
    assert load_data(str(tmp_path / "mine.jsonl"), Vocabulary(None, 9), examples=1).examples == mine[:1]


def test_a_hub_data_set(monkeypatch):
    datasets = types.ModuleType("datasets")
    datasets.load_dataset = None
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    vocab = Vocabulary(word_level(), 40)
    rows = {"text": ["the sky is blue .", " ", "a b c d"]}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: rows)
    data = load_data("hf:org/set:train:text:length=4", vocab, examples=2)
    assert sorted(example.id for example in data.examples) == ["row0-4-0", "row1-4-0"]
    assert data.spec == "hf:org/set:train:text:length=4"
    assert parse_data(data.spec)[1] == data.params

    def offline(name, split):
        raise ConnectionError("no route to the hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        DataError, match=r"hf:org/set:train:text could not be loaded: no route to the hub. It must be in"
    ):
        load_data("hf:org/set:train:text", vocab)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install datasets. Or give a .txt file"):
        load_data("hf:org/set:train:text", vocab)


def test_cards_say_everything():
    cards = {card["name"]: card for card in all_datasets()}
    assert set(cards) >= {"repeats", "random", "text", "needle", "hf"}
    for card in cards.values():
        assert card["summary"]
        assert card["source"]
        assert card["strata"][0] == "length"


def test_follow_reads_a_piece_as_it_stands_in_text():
    vocab = Vocabulary(byte_bpe(), 3000)
    assert vocab.decode(vocab.follow(" the sea wall")) == " the sea wall"
    assert vocab.encode("over") + vocab.follow(" the sea") == vocab.encode("over the sea")
    assert Vocabulary(None, 9).decode([3, 4]) == "3 4"


def test_bigram_backcopy_copies_after_its_triggers():
    vocab = Vocabulary(None, 200)
    data = load_data("bigram_backcopy:length=64", vocab, examples=5, seed=0)
    for example in data.examples:
        ids = example.token_ids
        assert len(ids) == 64
        triggers = [start for start, _ in example.spans["other"]]
        assert triggers and len({ids[index] for index in triggers}) <= 3
        assert all(ids[index + 1] == ids[index - 1] for index in triggers if 0 < index < 63)


@pytest.mark.parametrize("frames", ["held_out", "train", "far"])
def test_secrets_are_said_once_and_asked_for_at_the_end(frames):
    tokenizer = build_tokenizer()
    vocab = Vocabulary(tokenizer, len(tokenizer))
    data = load_data(f"secrets:lengths=160+256,depths=0+1,distractors=2,frames={frames}", vocab, examples=8, seed=1)
    batch = encode(data.examples, tokenizer)
    needle, answer = batch.group_mask("needle"), batch.group_mask("answer")
    assert (needle.sum(1) == 4).all() and (answer.sum(1) == 4).all()
    assert (batch.input_ids[needle] == batch.input_ids[answer]).all()
    assert (batch.group_mask("distractor").sum(1) == 8).all()
    assert batch.lengths.tolist() == [pytest.approx(example.conditions["length"], abs=65) for example in data.examples]
    assert all(
        length <= example.conditions["length"] for length, example in zip(batch.lengths, data.examples, strict=True)
    )
    first = needle.to(torch.int8).argmax(1)
    assert all(first[:2] < 30) and all(first[2:4] > 60)  # depth 0, then 1, each at both lengths


def test_secrets_refuse_what_they_do_not_have():
    vocab = Vocabulary(build_tokenizer(), 1000)
    with pytest.raises(DataError, match="expected frames of held_out, train, far; came 'near'"):
        load_data("secrets:frames=near", vocab)
    with pytest.raises(DataError, match="0 to 3 distractors"):
        load_data("secrets:distractors=4", vocab)
