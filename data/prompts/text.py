"""Natural text in windows that do not overlap: the text shipped with headatlas, or a file of yours.

The shipped text was written for headatlas: essays on everyday subjects, commented Python, and conversations. Windows of
one length tile each document from its beginning; their order is drawn from the seed. A window is a cluster of its own.
Neighbouring windows share a subject, so intervals speak of this text, not of language at large.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..catalog import dataset
from ..errors import DataError, near_miss
from ..examples import Example
from ..sampling import cell, stream
from ..vocabulary import Vocabulary

FOLDER = Path(__file__).parent.parent / "text"
DOMAINS = ("code", "dialogue", "essays")
"""The shipped texts, one file each."""

Windows = list[tuple[str, int, tuple[int, ...]]]


@dataset(
    name="text",
    summary="windows of natural text: shipped essays, code and dialogue, or a .txt file of yours",
    strata=("length",),
    groups=(),
    source="written for headatlas",
    defaults={"length": (128,), "domain": DOMAINS, "file": None},
)
def text(
    vocab: Vocabulary,
    *,
    examples: int,
    seed: int,
    length: tuple[int, ...] = (128,),
    domain: tuple[str, ...] = DOMAINS,
    file: str | None = None,
) -> Iterator[Example]:
    """Windows of `length` tokens in all, BOS included."""
    documents = {Path(file).stem: read_text(Path(file))} if file else shipped(domain)
    yield from windows_of(documents, vocab, name="text", examples=examples, seed=seed, length=length)


def windows_of(
    documents: Mapping[str, str], vocab: Vocabulary, *, name: str, examples: int, seed: int, length: tuple[int, ...]
) -> Iterator[Example]:
    """Examples of documents cut into windows; too few windows is an error that says how many there are."""
    encoded = {title: vocab.encode(content) for title, content in documents.items()}
    tiles = {size: _tiles(encoded, vocab.room(size, least=1, name=name)) for size in length}
    orders = {size: stream(name, seed, size).permutation(len(tiles[size])) for size in length}
    for k in range(examples):
        place, repetition = cell(k, length=length)
        size = place["length"]
        if repetition >= len(tiles[size]):
            raise DataError(
                f"{name}: this text has {len(tiles[size])} windows of {size} tokens; {examples} examples over "
                f"{len(length)} lengths need more. Ask for fewer examples, a smaller length, or give a longer file"
            )
        title, window, ids = tiles[size][orders[size][repetition]]
        yield Example(
            id=f"{title}-{size}-{window}",
            token_ids=ids,
            cluster=f"{title}/{window}",
            conditions={"length": size, "domain": title},
        )


def shipped(domain: tuple[str, ...] = DOMAINS) -> dict[str, str]:
    """Domain -> the text shipped for it."""
    for name in domain:
        if name not in DOMAINS:
            raise DataError(f"unknown domain {name!r}.{near_miss(name, DOMAINS)} Expected one of {', '.join(DOMAINS)}")
    return {name: read_text(FOLDER / f"{name}.txt") for name in domain}


def read_text(path: Path) -> str:
    """A text file in UTF-8 that is not blank."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: expected a text file in UTF-8; {error}") from error
    if not content.strip():
        raise DataError(f"{path} is blank; expected some text")
    return content


def _tiles(encoded: Mapping[str, list[int]], room: int) -> Windows:
    """(document, number, ids) of every whole window of `room` tokens."""
    return [
        (title, start // room, tuple(ids[start : start + room]))
        for title, ids in encoded.items()
        for start in range(0, len(ids) - room + 1, room)
    ]
