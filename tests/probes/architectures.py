"""Tiny random models of many architectures, built from configs without a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

VOCABULARY = 99
WINDOW = 8
"""Sliding window of the models that have one; shorter than the batches of the tests."""

TEXT = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 40, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
GROUPED = {**TEXT, "num_key_value_heads": 2, "head_dim": 8}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40,
          "image_size": 32, "patch_size": 8, "num_channels": 3}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """How to build one tiny model, and what it eats besides token ids."""

    build: Callable[[], PreTrainedModel]
    inputs: str = "text"
    """text, masked (bidirectional text), seq2seq, audio, image, contrastive, image-text, qwen-image-text."""
    window: int | None = None
    layers: int = 2


def _model(model_class: str, config_class: str, *, sharp: float = 6.0, **options: Any) -> Callable[[], PreTrainedModel]:
    def build() -> PreTrainedModel:
        torch.manual_seed(0)
        config = getattr(transformers, config_class)(**options)
        model = getattr(transformers, model_class)(config).eval()
        _sharpen(model, sharp)
        return model

    return build


def _sharpen(model: PreTrainedModel, factor: float = 6.0) -> None:
    """Random initial weights give flat attention; larger ones give rows that differ (but no weight underflows)."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embed" not in name and "norm" not in name:
                parameter.mul_(factor)
            if name.endswith(("sinks",)):
                parameter.normal_()
            if name.endswith("bias"):
                parameter.normal_(std=0.1)


def _causal(name: str, **options: Any) -> Callable[[], PreTrainedModel]:
    return _model(f"{name}ForCausalLM", f"{name}Config", **options)


def _llava() -> PreTrainedModel:
    torch.manual_seed(0)
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION), text_config=transformers.LlamaConfig(**GROUPED),
        image_token_index=98, vision_feature_layer=-1, vision_feature_select_strategy="default",
    )  # fmt: skip
    model = transformers.LlavaForConditionalGeneration(config).eval()
    _sharpen(model)
    return model


def _qwen2_vl() -> PreTrainedModel:
    torch.manual_seed(0)
    rope = {"type": "default", "rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = transformers.Qwen2VLConfig(
        text_config={**GROUPED, "rope_scaling": rope, "rope_parameters": rope, "head_dim": None},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": 8,
                       "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3},
        image_token_id=98, video_token_id=97, vision_start_token_id=96, vision_end_token_id=95, vocab_size=VOCABULARY,
    )  # fmt: skip
    model = transformers.Qwen2VLForConditionalGeneration(config).eval()
    _sharpen(model)
    return model


def _clip(name: str, sharp: float = 6.0) -> Callable[[], PreTrainedModel]:
    def build() -> PreTrainedModel:
        torch.manual_seed(0)
        text = {
            key: value for key, value in TEXT.items() if key not in ("pad_token_id", "bos_token_id", "eos_token_id")
        }
        config = getattr(transformers, f"{name}Config")(
            text_config={**text, "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": 1}, vision_config=VISION
        )
        model = getattr(transformers, f"{name}Model")(config).eval()
        _sharpen(model, sharp)
        return model

    return build


WHISPER = {"vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
           "decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "num_mel_bins": 8,
           "max_source_positions": 30, "max_target_positions": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
           "decoder_start_token_id": 1, "begin_suppress_tokens": None, "suppress_tokens": None}  # fmt: skip

FALCON = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_kv_heads": 2,
          "new_decoder_architecture": True, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip

ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(_model("GPT2LMHeadModel", "GPT2Config", vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)),
    "gpt_neox": Architecture(_causal("GPTNeoX", **TEXT)),
    "llama": Architecture(_causal("Llama", **GROUPED)),
    "mistral": Architecture(_causal("Mistral", **GROUPED, sliding_window=WINDOW), window=WINDOW),
    "mixtral": Architecture(_causal("Mixtral", **GROUPED, **EXPERTS, sliding_window=WINDOW), window=WINDOW),
    "qwen2": Architecture(_causal("Qwen2", **GROUPED)),
    "qwen3": Architecture(_causal("Qwen3", **GROUPED)),
    "gemma2": Architecture(_causal("Gemma2", **GROUPED, sliding_window=WINDOW, attn_logit_softcapping=3.0, query_pre_attn_scalar=8), window=WINDOW),
    "gemma3": Architecture(_model("Gemma3ForCausalLM", "Gemma3TextConfig", **{**GROUPED, "num_hidden_layers": 6}, sliding_window=WINDOW, query_pre_attn_scalar=8), window=WINDOW, layers=6),
    "phi3": Architecture(_causal("Phi3", **GROUPED, sliding_window=WINDOW), window=WINDOW),
    "olmo2": Architecture(_causal("Olmo2", **GROUPED)),
    "olmoe": Architecture(_causal("Olmoe", **GROUPED, **EXPERTS)),
    "gpt_oss": Architecture(_causal("GptOss", **GROUPED, **EXPERTS, sliding_window=WINDOW), window=WINDOW),
    "cohere2": Architecture(_causal("Cohere2", **{**GROUPED, "num_hidden_layers": 4}, sliding_window=WINDOW), window=WINDOW, layers=4),
    "smollm3": Architecture(_causal("SmolLM3", **GROUPED)),
    "opt": Architecture(_causal("OPT", vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=40, max_position_embeddings=64, word_embed_proj_dim=32, pad_token_id=0, bos_token_id=1, eos_token_id=2)),
    "bert": Architecture(_model("BertForMaskedLM", "BertConfig", **TEXT), "masked"),
    "albert": Architecture(_model("AlbertForMaskedLM", "AlbertConfig", **{**TEXT, "num_hidden_layers": 3}, embedding_size=16, num_hidden_groups=1), "masked", layers=3),
    "t5": Architecture(_model("T5ForConditionalGeneration", "T5Config", sharp=1.5, vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=40, num_layers=2, num_heads=4, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0), "seq2seq"),
    "whisper": Architecture(_model("WhisperForConditionalGeneration", "WhisperConfig", **WHISPER), "audio"),
    "vit": Architecture(_model("ViTModel", "ViTConfig", **VISION), "image"),
    "dinov2": Architecture(_model("Dinov2Model", "Dinov2Config", **{**VISION, "mlp_ratio": 2}), "image"),
    "clip": Architecture(_clip("CLIP"), "contrastive"),
    "siglip": Architecture(_clip("Siglip", sharp=2.0), "contrastive"),
    "llava": Architecture(_llava, "image-text"),
    "qwen2_vl": Architecture(_qwen2_vl, "qwen-image-text"),
    "falcon": Architecture(_causal("Falcon", attn_implementation="eager", **FALCON)),
    "falcon sdpa": Architecture(_causal("Falcon", attn_implementation="sdpa", **FALCON)),
    "bloom": Architecture(_causal("Bloom", vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, pad_token_id=0, bos_token_id=1, eos_token_id=2)),
    "gptj": Architecture(_causal("GPTJ", vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, rotary_dim=4, pad_token_id=0, bos_token_id=1, eos_token_id=2)),
    "mpt": Architecture(_causal("Mpt", vocab_size=VOCABULARY, d_model=32, n_layers=2, n_heads=4, expansion_ratio=2, max_seq_len=64)),
    "roberta": Architecture(_model("RobertaForMaskedLM", "RobertaConfig", **{**TEXT, "max_position_embeddings": 66}), "masked"),
    "modernbert": Architecture(_model("ModernBertForMaskedLM", "ModernBertConfig", **{**TEXT, "num_hidden_layers": 4}, local_attention=8, global_attn_every_n_layers=2, cls_token_id=1, sep_token_id=2), "masked", window=5, layers=4),
    "deberta": Architecture(_model("DebertaV2ForMaskedLM", "DebertaV2Config", sharp=2.0, **TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8), "masked"),
    "mpnet": Architecture(_model("MPNetForMaskedLM", "MPNetConfig", **TEXT), "masked"),
    "starcoder2": Architecture(_causal("Starcoder2", **{**TEXT, "num_key_value_heads": 2}, sliding_window=WINDOW), window=WINDOW),
    "olmo3": Architecture(_causal("Olmo3", **{**GROUPED, "num_hidden_layers": 4}, sliding_window=WINDOW), window=WINDOW, layers=4),
    "deepseek_v3": Architecture(_causal("DeepseekV3", **TEXT, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, n_group=2, topk_group=1, kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=8, moe_intermediate_size=16, first_k_dense_replace=1, n_shared_experts=1)),
    "llama4": Architecture(_model("Llama4ForCausalLM", "Llama4TextConfig", **{**GROUPED, "num_hidden_layers": 4}, num_local_experts=2, intermediate_size_mlp=40, attention_chunk_size=WINDOW, interleave_moe_layer_step=2, no_rope_layers=[1, 1, 1, 0]), layers=4),
    "bart": Architecture(_model("BartForConditionalGeneration", "BartConfig", vocab_size=VOCABULARY, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=40, decoder_ffn_dim=40, max_position_embeddings=64), "seq2seq"),
    "beit": Architecture(_model("BeitModel", "BeitConfig", **VISION, use_relative_position_bias=True), "image"),
    "gpt_neo": Architecture(_model("GPTNeoForCausalLM", "GPTNeoConfig", sharp=2.0, vocab_size=VOCABULARY, hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=64, attention_types=[[["global", "local"], 1]], window_size=WINDOW, bos_token_id=1, eos_token_id=2)),
    "codegen": Architecture(_causal("CodeGen", vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, rotary_dim=4, bos_token_id=1, eos_token_id=2)),
    "xglm": Architecture(_causal("XGLM", vocab_size=VOCABULARY, d_model=32, num_layers=2, attention_heads=4, ffn_dim=40, max_position_embeddings=64)),
    "xlnet": Architecture(_model("XLNetLMHeadModel", "XLNetConfig", vocab_size=VOCABULARY, d_model=32, n_layer=2, n_head=4, d_inner=40), "masked"),
}  # fmt: skip


def model_inputs(kind: str, *, left: bool = False, length: int = 21) -> dict[str, torch.Tensor]:
    """A padded batch of two for one kind of model; the second row is 8 tokens shorter."""
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 90, (2, length), generator=random)
    real = torch.ones_like(ids, dtype=torch.bool)
    padding = slice(0, 8) if left else slice(length - 8, length)
    if kind not in ("image", "audio", "image-text", "qwen-image-text"):
        real[1, padding] = False
        ids[1, padding] = 0
    if kind == "contrastive":
        ids[:, -1] = 2
    images = torch.randn(2, 3, 32, 32, generator=random)
    if kind == "image":
        return {"pixel_values": images}
    if kind == "audio":
        return {"input_features": torch.randn(2, 8, 60, generator=random), "decoder_input_ids": ids}
    found = {"input_ids": ids, "attention_mask": real}
    if kind == "seq2seq":
        found["decoder_input_ids"] = torch.randint(5, 90, (2, 9), generator=random)
    if kind == "contrastive":
        found["pixel_values"] = images
    if kind == "image-text":
        found["input_ids"] = torch.cat([ids[:, :2], torch.full((2, 16), 98), ids[:, 2:]], dim=1)
        found["attention_mask"] = torch.ones_like(found["input_ids"], dtype=torch.bool)
        found["pixel_values"] = images
    if kind == "qwen-image-text":
        found["input_ids"] = torch.cat([ids[:, :2], torch.full((2, 1), 96), torch.full((2, 4), 98), ids[:, 2:]], dim=1)
        found["attention_mask"] = torch.ones_like(found["input_ids"], dtype=torch.bool)
        found["pixel_values"] = torch.randn(32, 3 * 2 * 8 * 8, generator=random)
        found["mm_token_type_ids"] = (found["input_ids"] == 98).int()
        found["image_grid_thw"] = torch.tensor([[1, 4, 4], [1, 4, 4]])
    return found
