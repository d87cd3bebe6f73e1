import pytest
import torch
from headatlas.data.encode import encode
from headatlas.data.errors import DataError, UserError
from headatlas.data.examples import Example
from headatlas.data.tokens import GROUPS, IGNORED, TokenBatch

from .tokenizers_offline import CHAT, byte_bpe, metaspace, word_level


def labels(batch, row=0):
    return [batch.group_names[index] for index in batch.groups[row].tolist()]


def words(batch, tokenizer, row=0):
    return tokenizer.convert_ids_to_tokens(batch.input_ids[row].tolist())


def text(content, **fields):
    return Example(id="e", text=content, **fields)


def test_text_gets_bos_and_labels_from_characters():
    tokenizer = word_level()
    batch = encode([text("the sky is blue .", spans={"needle": ((4, 15),)})], tokenizer)
    assert words(batch, tokenizer) == ["<s>", "the", "sky", "is", "blue", "."]
    assert labels(batch) == ["bos", "rest", "needle", "needle", "needle", "rest"]
    assert batch.lengths.tolist() == [6]
    assert batch.targets is None


def test_padding_is_on_the_right():
    tokenizer = word_level()
    batch = encode([Example(id="1", text="a b c"), Example(id="2", text="a")], tokenizer)
    assert batch.example_ids == ("1", "2")
    assert batch.lengths.tolist() == [4, 2]
    assert words(batch, tokenizer, 1) == ["<s>", "a", "[PAD]", "[PAD]"]
    assert labels(batch, 1) == ["bos", "rest", "padding", "padding"]
    assert batch.query_mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert batch.groups.dtype == torch.int8
    assert batch.input_ids.dtype == batch.lengths.dtype == torch.int64


@pytest.mark.parametrize(
    ("frame", "bos", "expected", "first"),
    [
        ("bos", "default", "<s> a b", "bos"),
        ("bos", "force", "<s> a b", "bos"),
        ("bos", "none", "a b", "rest"),
        ("none", "default", "a b", "rest"),
        ("none", "force", "<s> a b", "bos"),
        ("bert", "default", "[CLS] a b [SEP]", "bos"),
        ("bert", "none", "a b [SEP]", "rest"),
        ("eos", "default", "a b </s>", "rest"),
    ],
)
@pytest.mark.parametrize("form", ["text", "token_ids"])
def test_bos_policies_and_frames(frame, bos, expected, first, form):
    tokenizer = word_level(frame=frame)
    ids = tuple(tokenizer.convert_tokens_to_ids(["a", "b"]))
    prompt = text("a b", spans={"subject": ((2, 3),)}) if form == "text" else None
    prompt = prompt or Example(id="e", token_ids=ids, spans={"subject": ((1, 2),)})
    batch = encode([prompt], tokenizer, bos=bos)
    found = words(batch, tokenizer)
    assert found == expected.split()
    assert labels(batch)[0] == first
    assert labels(batch)[found.index("b")] == "subject"
    if found[-1] in ("[SEP]", "</s>"):
        assert labels(batch)[-1] == "separator"


def test_force_without_a_bos_token_is_refused():
    with pytest.raises(DataError, match="'force' needs a BOS or CLS token, and this tokenizer has neither"):
        encode([text("a")], word_level(frame="eos"), bos="force")
    with pytest.raises(DataError, match="unknown BOS policy 'never'; expected one of default, force, none"):
        encode([text("a")], word_level(), bos="never")


@pytest.mark.parametrize("bos", ["default", "force"])
def test_no_double_bos(bos):
    tokenizer = word_level()
    ids = tuple(tokenizer.convert_tokens_to_ids(["<s>", "a"]))
    chat = Example(id="c", messages=({"role": "user", "content": "a"},))
    for prompt in (text("<s> a"), Example(id="e", token_ids=ids), chat):
        batch = encode([prompt], tokenizer, bos=bos)
        assert words(batch, tokenizer)[:2].count("<s>") == 1
        assert labels(batch)[0] == "bos"


@pytest.mark.parametrize("make", [byte_bpe, metaspace])
def test_spans_with_subwords_blanks_and_bytes(make):
    tokenizer = make()
    content = "Grüße an Zoë 🙂 from the lighthouse keeper."
    start = content.index("Zoë")
    spans = {"subject": ((start, start + 6),), "other": ((content.index("light"), content.index(" keeper")),)}
    batch = encode([text(content, spans=spans)], tokenizer)
    groups = labels(batch)
    ids = batch.input_ids[0].tolist()
    picked = {name: [one for one, group in zip(ids, groups) if group == name] for name in spans}
    assert tokenizer.decode(picked["other"]).strip() == "lighthouse"
    if make is byte_bpe:
        assert tokenizer.decode(picked["subject"]).strip() == "Zoë 🙂"


def test_the_most_specific_label_wins():
    tokenizer = word_level()
    spans = {"needle": ((4, 15),), "user": ((0, 17),), "subject": ((4, 7),), "other": ((8, 10),)}
    batch = encode([text("the sky is blue .", spans=spans)], tokenizer)
    assert labels(batch) == ["bos", "user", "subject", "needle", "needle", "user"]


def test_a_span_without_tokens_is_refused():
    with pytest.raises(DataError, match=r"no token holds the characters 1\.\.2 of 'needle' \(' '\)"):
        encode([text("a b", spans={"needle": ((1, 2),)})], word_level())


def test_an_answer_is_appended_and_its_targets_set():
    tokenizer = word_level()
    prompt = text("the sky is", answer=" blue .", spans={"user": ((0, 10),)})
    batch = encode([prompt, Example(id="2", text="a")], tokenizer)
    assert words(batch, tokenizer) == ["<s>", "the", "sky", "is", "blue", "."]
    assert labels(batch) == ["bos", "user", "user", "user", "answer", "answer"]
    blue, dot = tokenizer.convert_tokens_to_ids(["blue", "."])
    assert batch.targets.tolist() == [[IGNORED] * 3 + [blue, dot, IGNORED], [IGNORED] * 6]


def test_an_answer_reads_as_it_does_in_the_text():
    tokenizer = metaspace()
    batch = encode([text("the sky is", answer=" blue")], tokenizer)
    assert batch.input_ids[0].tolist() == tokenizer("the sky is blue")["input_ids"]
    answer = [one for one, group in zip(batch.input_ids[0].tolist(), labels(batch)) if group == "answer"]
    assert tokenizer.decode(answer).strip() == "blue"


def test_answer_ids_are_taken_as_they_are_and_stand_before_the_suffix():
    tokenizer = word_level(frame="bert")
    batch = encode([Example(id="e", token_ids=(9, 10), answer_ids=(11,), answer="c")], tokenizer)
    assert words(batch, tokenizer) == ["[CLS]", "a", "b", "c", "[SEP]"]
    assert labels(batch) == ["bos", "rest", "rest", "answer", "separator"]


def chat(*pairs, **fields):
    return Example(id="c", messages=tuple({"role": role, "content": content} for role, content in pairs), **fields)


def test_chat_roles_and_template():
    tokenizer = word_level()
    prompt = chat(("system", "you are kind"), ("user", "hello sky"), spans={"subject": ((18, 21),)})
    batch = encode([prompt], tokenizer)
    expected = "<s> <|system|> you are kind </s> <|user|> hello sky </s> <|assistant|>"
    assert words(batch, tokenizer) == expected.split()
    assert labels(batch) == [
        *("bos", "template", "system", "system", "system", "template", "template"),
        *("user", "subject", "template", "template"),
    ]
    whole = tokenizer.apply_chat_template(list(prompt.messages), add_generation_prompt=True, return_dict=False)
    assert batch.input_ids[0].tolist() == whole


def test_chat_bos_policies():
    tokenizer = word_level(template=CHAT.replace("{{ bos_token }}", ""))
    prompt = chat(("user", "hi"))
    assert words(encode([prompt], tokenizer), tokenizer)[0] == "<|user|>"
    forced = encode([prompt], tokenizer, bos="force")
    assert words(forced, tokenizer)[:2] == ["<s>", "<|user|>"]
    assert labels(forced)[:3] == ["bos", "template", "user"]
    bare = encode([prompt], word_level(), bos="none")
    assert words(bare, tokenizer)[0] == "<|user|>"


def test_chat_answer_and_repeated_contents():
    tokenizer = word_level()
    prompt = chat(("system", "hi"), ("user", "hi"), ("assistant", "hi"), ("user", "user"), answer="blue")
    batch = encode([prompt], tokenizer)
    assert [group for group in labels(batch) if group not in ("bos", "template")] == [
        *("system", "user", "assistant", "user", "answer"),
    ]


def test_chat_contents_that_the_template_trims():
    tokenizer = word_level(template=CHAT.replace("m.content", "m.content | trim"))
    batch = encode([chat(("user", "  hello sky "), spans={"subject": ((8, 11),)})], tokenizer)
    assert labels(batch) == ["bos", "template", "user", "subject", "template", "template"]


def test_chat_contents_that_the_template_changes():
    lower = word_level(template=CHAT.replace("m.content", "m.content | lower"))
    assert "user" in labels(encode([chat(("user", "hello"))], lower))
    with pytest.raises(
        DataError, match="the user message 'HELLO' occurs 0 times in what the chat template makes of it"
    ):
        encode([chat(("user", "HELLO"))], lower)


def test_chat_errors():
    with pytest.raises(DataError, match="is a chat and the tokenizer has no chat template"):
        encode([chat(("user", "a"))], word_level(template=None))
    refusing = word_level(template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(DataError, match="the chat template refuses these messages: roles must alternate"):
        encode([chat(("user", "a"))], refusing)
    with pytest.raises(DataError, match=r"the span 0\.\.3 of 'subject' crosses two messages"):
        encode([chat(("user", "a"), ("assistant", "b c"), spans={"subject": ((0, 3),)})], word_level())


def test_token_ids_need_no_tokenizer():
    batch = encode([Example(id="e", token_ids=(5, 6, 7), spans={"repeat": ((1, 3),)})], None)
    assert batch.input_ids.tolist() == [[5, 6, 7]]
    assert labels(batch) == ["rest", "repeat", "repeat"]
    with pytest.raises(DataError, match="example 'e' is text, which needs a tokenizer; give token_ids"):
        encode([text("a")], None)
    with pytest.raises(DataError, match="there is no tokenizer; give answer_ids"):
        encode([Example(id="e", token_ids=(5,), answer="x")], None)


def test_a_prompt_that_is_too_long_is_named():
    prompts = [text("a b"), Example(id="long", text="a b c", answer=" d")]
    with pytest.raises(ValueError, match=r"example 'long' has 5 tokens; the limit is 4\. Shorten it") as caught:
        encode(prompts, word_level(), max_length=4)
    assert isinstance(caught.value, UserError)
    assert encode(prompts, word_level(), max_length=5).lengths.tolist() == [3, 5]


def test_pictures_and_nothing_are_refused():
    with pytest.raises(DataError, match="has pictures, which need a model's processor"):
        encode([text("a", images=("cat.png",))], word_level())
    with pytest.raises(DataError, match="at least one example"):
        encode([], word_level())


def test_group_index_sums_children():
    batch = TokenBatch(("e",), groups=torch.tensor([[GROUPS.index("needle"), 0]], dtype=torch.int8))
    assert [GROUPS[index] for index in batch.group_index("user")] == ["user", "needle", "distractor", "subject"]
    assert [GROUPS[index] for index in batch.group_index("needle")] == ["needle"]
    assert batch.has_group("user")
    assert batch.has_group("needle")
    assert not batch.has_group("image")
    assert batch.group_mask("user").tolist() == [[True, False]]
    with pytest.raises(DataError, match=r"unknown token group 'needles'. Did you mean 'needle'"):
        batch.group_index("needles")
    assert not TokenBatch(("e",)).has_group("user")


def test_batch_shapes_are_checked():
    with pytest.raises(DataError, match=r"one shape \[batch, key\]"):
        TokenBatch(("e",), input_ids=torch.zeros(1, 3), query_mask=torch.ones(1, 2))
    with pytest.raises(DataError, match="one row for each of the 2 examples"):
        TokenBatch(("e", "f"), input_ids=torch.zeros(1, 3))
