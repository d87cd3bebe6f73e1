import copy

import pytest
from headatlas.data.errors import StoreError
from headatlas.data.schema import check_header, format_condition, run_id, slug, stratum_name

from .stores import header


def changed(path, value):
    copied = copy.deepcopy(header())
    *inner, last = path.split(".")
    place = copied
    for key in inner:
        place = place[key]
    place[last] = value
    return copied


def test_run_id_is_readable_and_stable():
    assert run_id(header()) == "tiny-lm-repeats-aea73850"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.digest", "other"),
        ("tokenizer.digest", "other"),
        ("dtype", "bfloat16"),
        ("data.digest", "other"),
        ("seed", 1),
        ("bos", "none"),
        ("edits", [{"kind": "mean", "heads": ["L1H2"]}]),
        ("versions.statistics", 2),
        ("kind", "edit"),
    ],
)
def test_run_id_changes_with_each_ingredient(path, value):
    assert run_id(changed(path, value)) != run_id(header())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("probes", {"other": {"version": 3}}),
        ("device", "cuda"),
        ("backend", "triton"),
        ("versions.torch", "9"),
        ("chunk_size", 8),
        ("data.spec", "./same.jsonl"),
        ("model.layers", 7),
        ("edits", []),
    ],
)
def test_run_id_does_not_depend_on_the_rest(path, value):
    assert run_id(changed(path, value)) == run_id(header())


def test_missing_keys_are_named():
    broken = header()
    del broken["seed"], broken["model"]["digest"]
    with pytest.raises(StoreError, match=r"a run header needs model\.digest, seed; came "):
        check_header(broken)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("meta-llama/Llama-3.2-1B", "llama-3.2-1b"),
        ("organism:pico-lm", "organism-pico-lm"),
        ("models/Café Ñandú/", "cafe-nandu"),
        ("模型", "model"),
        ("../..", "model"),
    ],
)
def test_slug(name, expected):
    assert slug(name, empty="model") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (512, "512"),
        (512.0, "512"),
        (0.5, "0.5"),
        (0.1, "0.1"),
        (True, "true"),
        ("a=b;c", "a%3Db%3Bc"),
        (1e6, "1000000"),
    ],
)
def test_format_condition(value, expected):
    assert format_condition(value) == expected


def test_stratum_name_puts_length_first():
    assert stratum_name(["depth", "length"], [0.5, 512]) == "length=512;depth=0.5"
