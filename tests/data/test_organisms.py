"""The shelf, the tokenizer and the prompt generators of the organisms."""

from __future__ import annotations

import json
import random
import string
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from headatlas.data.errors import UserError
from headatlas.data.organisms import words
from headatlas.data.organisms.rows import Encoder, packed
from headatlas.data.organisms.shelf import SHELF, certificate, organism_path, organisms
from headatlas.data.organisms.tasks import (
    bigram_backcopy,
    capitals,
    chat_roles,
    classification,
    colored_objects,
    english,
    greater_than,
    indirect_objects,
    multiple_choice,
    needle,
    repeats,
)
from headatlas.data.organisms.tasks.catalogue import SHORT_TASKS

MEGABYTE = 1_000_000
TEXTS = (
    "Mary and John went to the store.",
    "An arbitrary text, with Words it never saw: 3.14 (x_1 = y), 'quotes' & #tags!",
    "Lines\nand  double spaces; accents: naïve café, 日本語, emoji 🙂.",
    "The war lasted from the year 1732 to the year 17",
)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder()


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_from_its_tokens(encoder: Encoder, text: str) -> None:
    ids = encoder.tokenizer.encode(text)
    assert ids[0] == encoder.bos
    assert encoder.id_of("<unk>") not in ids
    assert encoder.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_year_is_a_century_and_an_ending(encoder: Encoder) -> None:
    pieces = encoder.tokenizer.convert_ids_to_tokens(encoder.encode("from 1732 to"))
    assert pieces == ["\u2581from", "\u258117", "32", "\u2581to"]


def test_the_vocabulary_has_no_piece_twice(encoder: Encoder) -> None:
    assert 1_000 <= encoder.vocabulary_size <= 1_300
    assert len(set(encoder.tokenizer.convert_ids_to_tokens(range(encoder.vocabulary_size)))) == encoder.vocabulary_size


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize("name", SHORT_TASKS)
def test_prompts_are_whole_words_and_partners_are_aligned(encoder: Encoder, name: str, split: str) -> None:
    rng = random.Random(name)
    for _ in range(40):
        prompt = SHORT_TASKS[name].make(rng, split=split)
        ids, answer = encoder.prompt(prompt)
        assert ids == encoder.tokenizer.encode(prompt.text)
        assert ids + answer == encoder.tokenizer.encode(prompt.text + prompt.answer)
        pieces = encoder.tokenizer.convert_ids_to_tokens(ids + answer)
        assert not set(pieces) & {*string.ascii_letters, "\u2581"}, "a word of the prompt is spelt in letters"
        assert len(encoder.encode(prompt.corrupted)) == len(ids) - 1
        assert prompt.corrupted != prompt.text
        assert not set(prompt.right_answers) & set(prompt.wrong_answers)


@pytest.mark.parametrize("length", [64, 128, 512])
def test_a_needle_fits_its_length_and_lies_at_its_depth(encoder: Encoder, length: int) -> None:
    rng = random.Random(length)
    for depth in (0.0, 0.5, 1.0):
        prompt = needle.make(
            rng, split="held_out", count_tokens=encoder.count, length=length, depth=depth, distractors=length // 256
        )
        ids, answer = encoder.prompt(prompt)
        assert length - 20 <= len(ids) + len(answer) <= length or length == 64
        assert prompt.text.count(prompt.answer) == 1
        at = prompt.text.index(prompt.answer) / len(prompt.text)
        assert abs(at - depth) < 0.5 if length > 64 else True
        assert not {wrong for wrong in prompt.wrong_answers if wrong not in prompt.text}


HELD_OUT = [
    (words.NAMES, words.HELD_OUT_NAMES),
    (words.PLACES, words.HELD_OUT_PLACES),
    (words.OBJECTS, words.HELD_OUT_OBJECTS),
    (words.EVENTS, words.HELD_OUT_EVENTS),
    (words.REVIEWED, words.HELD_OUT_REVIEWED),
    (words.SECRETS, words.HELD_OUT_SECRETS),
    *(
        (module.TEMPLATES, module.HELD_OUT_TEMPLATES)
        for module in (
            indirect_objects, colored_objects, greater_than, capitals, multiple_choice, chat_roles, needle
        )
    ),
    (classification.SENTIMENT_TEMPLATES, classification.HELD_OUT_SENTIMENT_TEMPLATES),
    (classification.TOPIC_TEMPLATES, classification.HELD_OUT_TOPIC_TEMPLATES),
    (english.SENTENCES, english.HELD_OUT_SENTENCES),
    (english.ENCYCLOPAEDIA, english.HELD_OUT_ENCYCLOPAEDIA),
    (english.CODE, english.HELD_OUT_CODE),
]  # fmt: skip


@pytest.mark.parametrize(("training", "held_out"), HELD_OUT)
def test_nothing_is_both_trained_and_held_out(training: tuple, held_out: tuple) -> None:
    assert held_out
    assert not set(training) & set(held_out)


def test_training_prompts_never_name_a_held_out_word() -> None:
    rng, encoder = random.Random(5), Encoder()
    hidden = {*words.HELD_OUT_NAMES, *words.HELD_OUT_PLACES, *words.HELD_OUT_OBJECTS, *words.HELD_OUT_EVENTS}
    makers = [task.make for task in SHORT_TASKS.values()]
    texts = [make(rng).text for make in makers for _ in range(300)]
    texts += [needle.make(rng, count_tokens=encoder.count, length=128).text for _ in range(200)]
    texts += [write(rng) for write in english.DOMAINS.values() for _ in range(300)]
    spoken = {word.strip(".,?!:") for text in texts for word in text.split()}
    assert not hidden & spoken


def test_a_repeat_is_predictable_from_the_second_token_of_its_second_copy(encoder: Encoder) -> None:
    tokens, graded = repeats.repeat(
        np.random.default_rng(0), ids=encoder.ordinary, bos=encoder.bos, length=41, segment=20
    )
    assert tokens[0] == encoder.bos
    assert (tokens[1:21] == tokens[21:41]).all()
    assert graded.sum() == 19
    assert not graded[:22].any()


def test_reversed_pairs_ask_for_the_token_before(encoder: Encoder) -> None:
    marker = encoder.id_of("?")
    tokens, graded = repeats.reversed_pairs(
        np.random.default_rng(0), ids=encoder.ordinary, bos=encoder.bos, marker=marker, length=61
    )
    stated = {(one, two) for one, two in tokens[1:25].reshape(-1, 2).tolist()}
    asked = {(two, one) for mark, one, two in tokens[25:].reshape(-1, 3).tolist() if mark == marker}
    assert stated == asked
    assert (tokens[graded] == tokens[25:].reshape(-1, 3)[:, 2]).all()


def test_triggers_copy_the_token_before_them(encoder: Encoder) -> None:
    table = bigram_backcopy.source(encoder.ordinary)
    tokens, copied = bigram_backcopy.sample(np.random.default_rng(1), table, rows=50, length=64, bos=encoder.bos)
    assert np.allclose(table.bigram.sum(axis=1), 1)
    row, at = np.nonzero(copied)
    assert len(row) > 200
    assert table.is_trigger(tokens[row, at - 1]).all()
    assert (tokens[row, at] == tokens[row, at - 2]).all()


def test_a_packed_row_weighs_each_prompt_alike(encoder: Encoder) -> None:
    rng = random.Random(2)
    row = packed(encoder, rng, [partial(capitals.make, rng)], length=100)
    graded = [weight for weight in row.weights if weight > 0.1]
    assert len(row.tokens) == len(row.weights) == 100
    assert set(graded) == {0.5}


def test_an_unknown_organism_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="Did you mean 'pico-lm'"):
        organism_path("organism:pico-ml")


def test_the_shelf_is_read_without_torch() -> None:
    code = (
        "import sys; from headatlas.data.organisms import shelf; shelf.organisms(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", organisms())
def test_an_organism_is_small_and_certified(name: str) -> None:
    files = list(organism_path(name).iterdir())
    assert sum(file.stat().st_size for file in files) <= 12 * MEGABYTE
    found = certificate(name)
    assert found["organism"] == name
    seed = name.partition("-seed")[2] or "0"
    assert str(found["training"]["seed"]) == seed
    assert all(row["n"] > 0 for row in found["rows"])
    assert "/" not in found["training"]["command"]


def test_pico_lm_has_the_promised_shape() -> None:
    config = json.loads((SHELF / "pico-lm" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["num_hidden_layers"] >= 6
    assert config["num_attention_heads"] >= 8
    assert config["num_key_value_heads"] < config["num_attention_heads"]
    assert config["max_position_embeddings"] == 1024
    assert set(certificate("pico-lm")["other_seeds"]) == {"1", "2"}
