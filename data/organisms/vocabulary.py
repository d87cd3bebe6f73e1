"""The tokenizer of the organisms: whole words of pico English, letters, digits, punctuation, and bytes for all else.

A Unigram model whose scores prefer a whole word to its letters, and letters to bytes, so any text has an encoding and
decode(encode(text)) == text. Two digits are one token: '1732' reads '17', '32' (century, ending).
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

from . import words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD, UNK, END = "<bos>", "<eos>", "<pad>", "<unk>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
SPECIAL = (PAD, BOS, EOS, UNK, *ROLES, END)
SUFFIXES = ("ing", "ed", "er", "ly", "es", "tion", "en", "th", "in", "on")
SCORES = {"special": 0.0, "word": -8.0, "character": -12.0, "byte": -20.0}
SPACE = "\u2581"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|>"
    "{% if not loop.last %} {% endif %}{% endfor %}{% if add_generation_prompt %} <|assistant|>{% endif %}"
)


def pieces() -> list[tuple[str, float]]:
    """(piece, score) in id order: special tokens, words, two-digit numbers, suffixes, characters, bytes."""
    characters = [SPACE, "\n", *string.ascii_letters, *string.digits, *string.punctuation]
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    kinds = {
        "special": SPECIAL,
        "word": [*(SPACE + word for word in words.WORDS), *words.YEAR_ENDINGS, *SUFFIXES],
        "character": characters,
        "byte": bytes_,
    }
    return [(piece, SCORES[kind]) for kind, group in kinds.items() for piece in group]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, made anew from the word lists; BOS is added by default."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    table = pieces()
    tokenizer = Tokenizer(models.Unigram(table, unk_id=SPECIAL.index(UNK), byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, lstrip=True, rstrip=True, special=True) for token in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, SPECIAL.index(BOS))]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, unk_token=UNK,
        additional_special_tokens=[*ROLES, END], model_max_length=1024, clean_up_tokenization_spaces=False,
        padding_side="right",
    )  # fmt: skip
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped
