"""Training batches: rows of the named families, drawn afresh for every (seed, step)."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import numpy as np

from ...data.organisms.rows import Encoder, Row, batch, graded_row, packed, running_text, single
from ...data.organisms.tasks import (
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
from .recipe import Feed, Stage

SHORT_TASKS = {
    "indirect_objects": indirect_objects.make,
    "colored_objects": colored_objects.make,
    "greater_than": greater_than.make,
    "multiple_choice": multiple_choice.make,
    "capitals": capitals.make,
    "chat_roles": chat_roles.make,
    "sentiment": classification.sentiment,
    "topic": classification.topic,
}
DrawRow = Callable[[Encoder, random.Random, np.random.Generator, int], Row]


def repeat_row(encoder: Encoder, _: random.Random, generator: np.random.Generator, length: int) -> Row:
    """A random segment repeated."""
    return graded_row(*repeats.repeat(generator, ids=encoder.ordinary, bos=encoder.bos, length=length))


def ambiguous_row(encoder: Encoder, _: random.Random, generator: np.random.Generator, length: int) -> Row:
    """A repeat over few distinct tokens."""
    return graded_row(*repeats.ambiguous_repeat(generator, ids=encoder.ordinary, bos=encoder.bos, length=length))


def pair_row(encoder: Encoder, _: random.Random, generator: np.random.Generator, length: int) -> Row:
    """Pairs, then the pairs backwards."""
    marker = encoder.id_of("?")
    return graded_row(
        *repeats.reversed_pairs(generator, ids=encoder.ordinary, bos=encoder.bos, marker=marker, length=length)
    )


def needle_row(encoder: Encoder, rng: random.Random, _: np.random.Generator, length: int) -> Row:
    """A needle at an even depth or, in three rows of five, in the first quarter: long distances are the hard ones."""
    depth = rng.random() * (0.25 if rng.random() < 0.6 else 1.0)
    prompt = needle.make(
        rng,
        count_tokens=encoder.count,
        length=length,
        depth=depth,
        distractors=rng.randint(0, 3 if length > 128 else 1),
    )
    return single(encoder, prompt)


def task_row(encoder: Encoder, rng: random.Random, _: np.random.Generator, length: int) -> Row:
    """Short tasks in a row, drawn evenly."""
    return packed(encoder, rng, [partial(make, rng) for make in SHORT_TASKS.values()], length=length)


def one_task_row(encoder: Encoder, rng: random.Random, _: np.random.Generator, _length: int) -> Row:
    """One short task alone in its row."""
    return single(encoder, rng.choice(tuple(SHORT_TASKS.values()))(rng))


def one_name_row(encoder: Encoder, rng: random.Random, _: np.random.Generator, _length: int) -> Row:
    """One indirect object alone in its row: with more sentences about, their names drown the two that matter."""
    return single(encoder, indirect_objects.make(rng))


def one_colour_row(encoder: Encoder, rng: random.Random, _: np.random.Generator, _length: int) -> Row:
    """Coloured objects or lettered options: the two that need the token before an occurrence."""
    return single(encoder, rng.choice((colored_objects.make, multiple_choice.make))(rng))


def text_row(encoder: Encoder, rng: random.Random, _: np.random.Generator, length: int) -> Row:
    """A row of one of the three domains."""
    return running_text(encoder, partial(rng.choice(tuple(english.DOMAINS.values())), rng), length=length)


def english_row(encoder: Encoder, rng: random.Random, _: np.random.Generator, length: int) -> Row:
    """Plain English alone."""
    return running_text(encoder, partial(english.sentence, rng), length=length)


def backcopy_row(encoder: Encoder, _: random.Random, generator: np.random.Generator, length: int) -> Row:
    """One row of Bigram-Backcopy, every token graded alike."""
    table = bigram_backcopy.source(encoder.ordinary)
    tokens = bigram_backcopy.sample(generator, table, rows=1, length=length, bos=encoder.bos)[0]
    return Row(tokens[0].tolist(), [0.0] + [1 / (length - 1)] * (length - 1))


FAMILIES: dict[str, DrawRow] = {
    "repeats": repeat_row,
    "ambiguous_repeats": ambiguous_row,
    "reversed_pairs": pair_row,
    "needle": needle_row,
    "tasks": task_row,
    "one_task": one_task_row,
    "one_name": one_name_row,
    "one_colour_or_letter": one_colour_row,
    "text": text_row,
    "english": english_row,
    "bigram_backcopy": backcopy_row,
}


def draw_batch(encoder: Encoder, stage: Stage, *, seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, weights) of this step: one feed by its share, then rows by the feed's weights."""
    rng = random.Random(f"{seed}/{stage.name}/{step}")
    generator = np.random.default_rng([seed, rng.getrandbits(32), step])
    feed: Feed = rng.choices(stage.feeds, weights=[feed.share for feed in stage.feeds])[0]
    count = max(1, stage.tokens // feed.length)
    chosen = rng.choices(tuple(feed.families), weights=tuple(feed.families.values()), k=count)
    return batch([FAMILIES[name](encoder, rng, generator, feed.length) for name in chosen], pad=encoder.pad)
