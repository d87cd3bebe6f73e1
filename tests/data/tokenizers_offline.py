"""Small fast tokenizers built from nothing, one per way of framing a prompt."""

from functools import cache

from headatlas.data.prompts.text import shipped
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def word_level(*, frame="bos", template=CHAT):
    """Whole words, split at blanks and punctuation; unknown words are [UNK]. frame: bos, bert, eos or none."""
    words = ["[UNK]", "<s>", "</s>", "[CLS]", "[SEP]", "[PAD]", "<|system|>", "<|user|>", "<|assistant|>"]
    words += [
        "a",
        "b",
        "c",
        "d",
        "the",
        "sky",
        "is",
        "blue",
        "Paris",
        "red",
        "hello",
        "you",
        "are",
        "kind",
        "hi",
        ".",
        "?",
        "!",
        "x",
    ]
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return _dressed(core, frame=frame, template=template, extra=["<|system|>", "<|user|>", "<|assistant|>"])


@cache
def byte_bpe(*, frame="bos", template=CHAT):
    """Byte-level BPE trained on the shipped essays, as GPT-2's is made."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["[UNK]", "<s>", "</s>", "[CLS]", "[SEP]", "[PAD]", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=3000, special_tokens=special, initial_alphabet=alphabet)
    core.train_from_iterator(shipped(("essays",)).values(), trainer)
    return _dressed(core, frame=frame, template=template, extra=special[6:])


def metaspace():
    """SentencePiece's manner: a blank before the text, blanks written as a low line."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    special = ["[UNK]", "<s>", "</s>", "[CLS]", "[SEP]", "[PAD]"]
    core.train_from_iterator(
        shipped(("essays",)).values(), trainers.BpeTrainer(vocab_size=2000, special_tokens=special)
    )
    return _dressed(core, frame="bos", template=None, extra=[])


def _dressed(core, *, frame, template, extra):
    frames = {"bos": "<s> $A", "bert": "[CLS] $A [SEP]", "eos": "$A </s>", "none": "$A"}
    specials = [(word, core.token_to_id(word)) for word in ("<s>", "</s>", "[CLS]", "[SEP]")]
    core.post_processor = processors.TemplateProcessing(single=frames[frame], special_tokens=specials)
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "eos_token": "</s>"}
    if frame == "bert":
        names |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    elif frame != "eos":
        names |= {"bos_token": "<s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, additional_special_tokens=extra, **names)
    tokenizer.chat_template = template
    return tokenizer
