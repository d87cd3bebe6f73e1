"""A small run for the tests: 2 layers of 3 heads, chunks of 4 examples."""

import numpy as np
import pandas as pd


def header(*, examples=10, probes=("entropy", "sink"), **changes):
    plain = {
        "model": {"name": "org/Tiny-LM", "digest": "weights", "layers": 2, "heads": 3},
        "tokenizer": {"digest": "tokenizer"},
        "data": {
            "name": "repeats",
            "spec": "repeats:length=128",
            "digest": "data",
            "strata": ["length"],
            "groups": ["repeat"],
            "examples": examples,
        },
        "dtype": "float32",
        "device": "cpu",
        "backend": "streaming",
        "seed": 0,
        "bos": "default",
        "chunk_size": 4,
        "versions": {"headatlas": "0.1.0", "torch": "2.6", "statistics": 1},
        "probes": {name: {"version": 1} for name in probes},
    }
    return {**plain, **changes}


def examples_frame(examples=10, **columns):
    plain = {
        "example": range(examples),
        "id": [f"e{k}" for k in range(examples)],
        "dataset": "repeats",
        "cluster": [f"e{k}" for k in range(examples)],
        "tokens": 128,
        "text": "some text",
        "c_length": 128,
    }
    return pd.DataFrame({**plain, **columns})


def chunk_rows(chunk, probe, *, examples=10, size=4):
    """value = example + 100 * layer + 10 * head, so that every row can be recognised."""
    e, layer, head = np.meshgrid(
        np.arange(chunk * size, min(examples, (chunk + 1) * size)), np.arange(2), np.arange(3), indexing="ij"
    )
    value = (e + 100 * layer + 10 * head).astype(np.float32)
    return {
        "example": e.ravel(),
        "probe": probe,
        "layer": layer.ravel(),
        "head": head.ravel(),
        "value": value.ravel(),
        "n_queries": 127,
    }


def fill(writer, *, chunks=range(3), probes=("entropy", "sink"), examples=10):
    """Write what is missing of the chunks, one part per chunk and probe."""
    writer.write_examples(examples_frame(examples))
    for chunk in chunks:
        for probe in probes:
            if probe not in writer.done(chunk):
                writer.write_rows(chunk, chunk_rows(chunk, probe, examples=examples), [probe])
