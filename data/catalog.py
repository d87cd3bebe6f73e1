"""The data sets there are: generators found in `prompts/`, and loading one by its spelling.

A generator is a function `(vocab, *, examples, seed, **params) -> Iterator[Example]` under `@dataset`. `examples` is
the total number of prompts, spread evenly over the grid of its list parameters: the first list turns fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from .errors import DataError, near_miss
from .examples import Example
from .jsonl import digest_of, read_examples
from .spec import Params, spell, split_spec, typed_params
from .vocabulary import Vocabulary

__all__ = ["Dataset", "Vocabulary", "all_datasets", "dataset", "load_data", "parse_data"]

Generator = Callable[..., Iterator[Example]]


@dataclass(frozen=True)
class Card:
    """What is known of a data set without making one."""

    name: str
    summary: str
    strata: tuple[str, ...]
    groups: tuple[str, ...]
    source: str
    defaults: Params
    make: Generator

    def record(self) -> dict[str, Any]:
        """The card as a row of a table."""
        return {
            "name": self.name,
            "summary": self.summary,
            "params": dict(self.defaults),
            "strata": list(self.strata),
            "groups": list(self.groups),
            "source": self.source,
        }


@dataclass(frozen=True)
class Dataset:
    """Examples made or read, with the canonical spelling and a digest of every field of every example."""

    name: str
    spec: str
    params: Params
    strata: tuple[str, ...]
    groups: tuple[str, ...]
    examples: list[Example]
    digest: str


_CARDS: dict[str, Card] = {}


def dataset(
    *, name: str, summary: str, strata: tuple[str, ...], groups: tuple[str, ...], source: str, defaults: Params
) -> Callable[[Generator], Generator]:
    """Declare a generator as a data set; `strata` are the conditions its results must be split by."""

    def declare(make: Generator) -> Generator:
        _CARDS[name] = Card(name, summary, strata, groups, source, dict(defaults), make)
        return make

    return declare


def all_datasets() -> list[dict[str, Any]]:
    """One record per data set: name, summary, params with their defaults, strata, groups, source."""
    return [card.record() for _, card in sorted(_cards().items())]


def parse_data(spec: str) -> tuple[str, Params]:
    """The name of a data set and the parameters given, typed; a .jsonl, .txt or hf: spec is `jsonl`, `text`, `hf`."""
    place, raw = _file_spec(spec)
    if place is not None and place.endswith(".jsonl"):
        if raw:
            raise DataError(f"data {spec!r}: a .jsonl file takes no parameters; came {', '.join(raw)}")
        return "jsonl", {"file": place}
    if place is not None:
        return "text", {"file": place, **typed_params("text", raw, _cards()["text"].defaults)}
    if spec.startswith("hf:"):
        return "hf", _hub_params(spec)
    name, raw = split_spec(spec)
    return name, typed_params(name, raw, _card(name).defaults)


def declared_groups(spec: str) -> tuple[str, ...] | None:
    """The labels that a data set's tokens may carry, without making it: of a .jsonl file those that stand in it.

    None where only the tokens can say. A data set, parameter or file that there is not is refused.
    """
    name, given = parse_data(spec)
    return _from_file(given["file"], None).groups if name == "jsonl" else _cards()[name].groups


def load_data(spec: str, vocab: Vocabulary, *, examples: int = 32, seed: int = 0) -> Dataset:
    """Make or read the data set `spec` for one model's vocabulary: at most `examples` prompts of a file, exactly
    `examples` of a generator, example k being the same whatever the number."""
    if examples < 1:
        raise DataError(f"expected at least one example; came examples={examples}")
    name, given = parse_data(spec)
    if name == "jsonl":
        return _from_file(given["file"], examples)
    card = _cards()[name]
    params = {**card.defaults, **given}
    made = list(card.make(vocab, examples=examples, seed=seed, **params))
    return Dataset(name, canonical_spec(name, params), params, card.strata, card.groups, made, digest_of(made))


def canonical_spec(name: str, params: Params) -> str:
    """The one spelling of a generator with these parameters; `parse_data` reads it back."""
    if name != "hf":
        return spell(name, params)
    return f"hf:{params['dataset']}:{params['split']}:{params['column']}:{spell('', {'length': params['length']})[1:]}"


def _from_file(file: str, examples: int | None) -> Dataset:
    """Examples as they stand in a .jsonl file; strata are their lengths, groups those of their spans."""
    made = read_examples(file)[:examples]
    groups = {group for example in made for group in example.spans}
    groups |= {message["role"] for example in made for message in example.messages or ()}
    if any(example.answer or example.answer_ids for example in made):
        groups.add("answer")
    return Dataset(Path(file).stem, file, {"file": file}, ("length",), tuple(sorted(groups)), made, digest_of(made))


def _file_spec(spec: str) -> tuple[str | None, dict[str, str]]:
    """A path and raw parameters where the spec is `FILE.txt`, `FILE.jsonl` or one of them with `:key=value`."""
    for suffix in (".txt", ".jsonl"):
        before, found, after = spec.partition(suffix)
        if found and "=" not in before and (not after or after.startswith(":")):
            return before + suffix, split_spec(f"file{after}")[1]
    return None, {}


def _hub_params(spec: str) -> Params:
    pieces = spec.split(":", 4)
    if len(pieces) < 4 or not all(pieces[1:4]):
        raise DataError(f"data {spec!r}: expected hf:NAME:SPLIT:COLUMN. Example: hf:stas/openwebtext-10k:train:text")
    raw = split_spec(f"hf:{pieces[4]}")[1] if len(pieces) > 4 else {}
    given = typed_params("hf", raw, {"length": _cards()["hf"].defaults["length"]})
    return {"dataset": pieces[1], "split": pieces[2], "column": pieces[3], **given}


def _card(name: str) -> Card:
    cards = _cards()
    if name not in cards:
        raise DataError(
            f"unknown data set {name!r}.{near_miss(name, cards)} Expected one of {', '.join(sorted(cards))}, "
            "or a path that ends in .jsonl or .txt"
        )
    return cards[name]


@cache
def _cards() -> dict[str, Card]:
    """Every card, after importing each family in `prompts/`."""
    folder = Path(__file__).parent / "prompts"
    for module in iter_modules([str(folder)]):
        import_module(f".prompts.{module.name}", __package__)
    return _CARDS
