import json

import pytest
from headatlas.data.errors import DataError
from headatlas.data.examples import Example, examples_frame
from headatlas.data.jsonl import digest_of, read_examples, to_record, write_examples
from headatlas.data.store import open_store

from .stores import header

ALL = [
    Example(id="plain", text="naïve 🙂", spans={"needle": ((0, 5),)}, answer=" yes", wrong_answer=" no", partner="ids"),
    Example(id="ids", token_ids=(1, 2, 3), answer_ids=(4,), cluster="c", conditions={"depth": 0.5, "ok": True, "k": 3}),
    Example(id="chat", messages=({"role": "user", "content": "hi"},), images=("a.png",), conditions={"who": "é"}),
]


def test_jsonl_round_trip(tmp_path):
    made = [*ALL, Example(id="label", text="a", answer=" good", choices=(" bad", " good"))]
    write_examples(tmp_path / "e.jsonl", made)
    assert read_examples(tmp_path / "e.jsonl") == made
    assert made[3].others == (" bad",) and ALL[0].others == (" no",) and ALL[1].others == ()
    assert digest_of(read_examples(tmp_path / "e.jsonl")) == digest_of(made)
    assert ALL[0].cluster == "plain"
    assert to_record(ALL[1]) == {
        "id": "ids",
        "token_ids": (1, 2, 3),
        "answer_ids": (4,),
        "cluster": "c",
        "conditions": {"depth": 0.5, "ok": True, "k": 3},
    }


def test_line_ends_inside_text_survive(tmp_path):
    odd = [Example(id="1", text="a\nb\u2028c\u0085d")]
    write_examples(tmp_path / "e.jsonl", odd)
    assert read_examples(tmp_path / "e.jsonl") == odd


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "x", "text": "a"', r"expected one JSON object; .* at column \d+"),
        ("[1]", "expected an object with an id and a prompt; came list"),
        ('{"text": "a"}', "the field 'id' is missing"),
        ('{"id": "x", "txt": "a"}', r"unknown field 'txt'\. Did you mean 'text'\? Expected fields: id, text"),
        ('{"id": "x"}', "expected exactly one of text, messages and token_ids; came none of them"),
        ('{"id": "x", "text": "a", "token_ids": [1]}', "came text and token_ids"),
        ('{"id": "x", "text": ""}', "its text is empty; give at least one token"),
        ('{"id": "x", "token_ids": [1.5]}', "expected token ids of 0 or more in token_ids; came 1.5"),
        ('{"id": "x", "text": "ab", "spans": {"needle": [[1, 3]]}}', r"the span 1\.\.3 of 'needle' .* <= 2 characters"),
        (
            '{"id": "x", "text": "ab", "spans": {"nedle": [[0, 1]]}}',
            "unknown token group 'nedle'. Did you mean 'needle'",
        ),
        ('{"id": "x", "text": "ab", "spans": {"needle": [[0]]}}', r"expected \[start, end\) pairs"),
        ('{"id": "x", "text": "ab", "spans": 3}', "a field has a form it must not have"),
        ('{"id": "x", "messages": [{"role": "bot", "content": "a"}]}', r"a role \(system, user, assistant\)"),
        (
            '{"id": "x", "text": "a", "conditions": {"depth": null}}',
            "condition 'depth': expected text, a number or truth",
        ),
        ('{"id": 3, "text": "a"}', "an example needs an id: expected text that is not empty; came 3"),
        (
            '{"id": "x", "text": "a", "answer": " yes", "choices": [" no"]}',
            "expected its answer ' yes' and another one among",
        ),
        (
            '{"id": "x", "text": "a", "answer": " yes", "choices": " yes"}',
            "expected a list of answers in choices; came ' yes'",
        ),
        ('{"id": "good", "text": "again"}', "the id 'good' is already that of line 1"),
    ],
)
def test_errors_name_the_file_and_the_line(tmp_path, line, message):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": "good", "text": "a"}\n\n' + line + "\n")
    with pytest.raises(DataError, match=rf"mine\.jsonl, line 3: .*{message}"):
        read_examples(path)


def test_files_without_examples(tmp_path):
    (tmp_path / "e.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="holds no examples: expected one JSON object a line"):
        read_examples(tmp_path / "e.jsonl")
    with pytest.raises(DataError, match=r"absent\.jsonl cannot be read: expected a .jsonl file in UTF-8"):
        read_examples(tmp_path / "absent.jsonl")


def test_the_digest_sees_every_field():
    changed = [Example(**{**to_record(ALL[1]), "cluster": "d"}), Example(**{**to_record(ALL[1]), "token_ids": (1, 2)})]
    assert len({digest_of([one]) for one in [ALL[1], *changed]}) == 3


def test_examples_frame_is_what_a_run_stores(tmp_path):
    frame = examples_frame(ALL, dataset="mine", tokens=[2, 3, 4], texts=["a", "b", "c"], token_ids=[(1,), None, None])
    writer = open_store(tmp_path, create=True).writer(header(examples=3))
    writer.write_examples(frame)
    writer.close()
    stored = writer.run.examples()
    assert stored["cluster"].tolist() == ["plain", "c", "chat"]
    assert stored["tokens"].tolist() == [2, 3, 4]
    assert stored["c_k"].tolist()[1] == 3
    assert stored["c_depth"].isna().tolist() == [True, False, True]
    assert stored["c_ok"].tolist() == [None, True, None]
    assert stored["c_who"].tolist()[2] == "é"
    assert list(stored["token_ids"][0]) == [1]


def test_examples_are_values():
    assert Example(**json.loads(json.dumps(to_record(ALL[0])))) == ALL[0]
    with pytest.raises(AttributeError):
        ALL[0].text = "other"
