"""The empty prompt, embedded once by FLUX's text encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from lotus2_ros.model.weights import CheckpointError

# No attention mask is used: all of them are live, though all but the first are padding.
T5_TOKENS = 512


@torch.inference_mode()
def embed_empty_prompt(folder: Path, *, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(prompt_embeds (1, 512, D) from T5, pooled (1, P) from CLIP at its first end-of-text token)."""
    # T5 overflows float16.
    dtype = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
    clip_ids = _tokenize(CLIPTokenizer, folder / "tokenizer")
    t5_ids = _tokenize(T5TokenizerFast, folder / "tokenizer_2", T5_TOKENS)
    clip = _encoder(CLIPTextModel, folder / "text_encoder", dtype).to(device)
    pooled = clip(clip_ids.to(device)).pooler_output
    t5 = _encoder(T5EncoderModel, folder / "text_encoder_2", dtype).to(device)
    return t5(t5_ids.to(device)).last_hidden_state.clone(), pooled.clone()


def _tokenize(kind: Any, folder: Path, length: int | None = None) -> Tensor:
    _expect_folder(folder)
    # Without any of them the library makes up an empty vocabulary.
    files = sorted(set(kind.vocab_files_names.values()))
    if not any((folder / file).is_file() for file in files):
        raise CheckpointError(f"{folder}: expected one of {', '.join(files)}, found none")
    try:
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: {_first_line(error)}") from None
    return tokenizer(
        "", padding="max_length", max_length=length or tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids


def _encoder(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    _expect_folder(folder)
    try:
        encoder, report = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: {_first_line(error)}") from None
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            raise CheckpointError(f"{folder}: {problem.replace('_', ' ')} {sorted(report[problem])[0]}")
    return encoder.eval()


def _expect_folder(folder: Path) -> None:
    # Without this the library would take the path for a name on a model hub.
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: folder not found; the released layout needs FLUX's text encoders and tokenizers"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
