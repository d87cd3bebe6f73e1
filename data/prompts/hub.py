"""A column of a Hugging Face data set, in windows: `hf:NAME:SPLIT:COLUMN`, with `:length=256` after it if wanted."""

from __future__ import annotations

from collections.abc import Iterator

from ..catalog import dataset
from ..errors import DataError, first_line
from ..examples import Example
from ..vocabulary import Vocabulary
from .text import windows_of

ROWS_READ = 2000
"""Rows read from the data set, blank ones left out."""


@dataset(
    name="hf",
    summary="a text column of a Hugging Face data set, spelled hf:NAME:SPLIT:COLUMN; needs the `datasets` package",
    strata=("length",),
    groups=(),
    source="the data set named",
    defaults={"dataset": None, "split": None, "column": None, "length": (128,)},
)
def hub(
    vocab: Vocabulary,
    *,
    examples: int,
    seed: int,
    dataset: str | None = None,
    split: str | None = None,
    column: str | None = None,
    length: tuple[int, ...] = (128,),
) -> Iterator[Example]:
    """Windows of `length` tokens in all over the first rows, each row a document."""
    if not (dataset and split and column):
        raise DataError("data set 'hf' is spelled hf:NAME:SPLIT:COLUMN. Example: hf:stas/openwebtext-10k:train:text")
    texts = _column(dataset, split, column)
    documents = {f"row{number}": content for number, content in enumerate(texts)}
    yield from windows_of(documents, vocab, name="hf", examples=examples, seed=seed, length=length)


def _column(dataset: str, split: str, column: str) -> list[str]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise DataError("hf: data needs the `datasets` package: pip install datasets. Or give a .txt file") from None
    try:
        rows = load_dataset(dataset, split=split)
        texts = [str(row) for row in rows[column][:ROWS_READ]]
    except Exception as error:
        raise DataError(
            f"hf:{dataset}:{split}:{column} could not be loaded: {first_line(error)}. It must be in the local cache or "
            "the hub reachable, and the split and the column must exist. Or give a .txt file"
        ) from error
    found = [text for text in texts if text.strip()]
    if not found:
        raise DataError(f"hf:{dataset}:{split}:{column} holds no text in its first {ROWS_READ} rows")
    return found
