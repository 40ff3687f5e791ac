"""The embedding of the empty prompt by a model's text encoders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast
from transformers.utils import logging

from lotus2_ros.model.weights import CheckpointError, open_weights, read_json, weight_file

# No attention mask is used, so all tokens take part, although all but the first are padding.
T5_TOKENS = 512


@torch.inference_mode()
def embed_empty_prompt(folder: Path, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """(prompt_embeds (1, 512, D) from T5, pooled (1, P) from CLIP at its first end-of-text token), on the CPU.

    In the dtype of the encoders' files. The files are memory-mapped, and one encoder is loaded after the other.
    """
    clip_ids = _tokenize(CLIPTokenizer, folder / "tokenizer").to(device)
    t5_ids = _tokenize(T5TokenizerFast, folder / "tokenizer_2", T5_TOKENS).to(device)
    pooled = _encoder(CLIPTextModel, folder / "text_encoder").to(device)(clip_ids).pooler_output
    prompt_embeds = _encoder(T5EncoderModel, folder / "text_encoder_2").to(device)(t5_ids).last_hidden_state
    for tensor, component in ((pooled, "text_encoder"), (prompt_embeds, "text_encoder_2")):
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{folder / component}: its embedding of the empty prompt has NaN or infinite values")
    return prompt_embeds.cpu().clone(), pooled.cpu().clone()


@torch.inference_mode()
def embed_unpadded_prompt(folder: Path) -> Tensor:
    """(1, 2, C) float32 from CLIP: the start and end token of the empty prompt without padding, as Lotus takes it."""
    ids = _tokenize(CLIPTokenizer, folder / "tokenizer", padded=False)
    embedding = _encoder(CLIPTextModel, folder / "text_encoder").float()(ids).last_hidden_state
    if not bool(embedding.isfinite().all()):
        raise CheckpointError(
            f"{folder / 'text_encoder'}: its embedding of the empty prompt has NaN or infinite values"
        )
    return embedding.clone()


def check_encoders(folder: Path) -> None:
    """Raise CheckpointError unless all files are there and the encoders' weights are complete."""
    for kind, component in ((CLIPTokenizer, "tokenizer"), (T5TokenizerFast, "tokenizer_2")):
        _check_vocabulary(kind, folder / component)
    for component in ("text_encoder", "text_encoder_2"):
        _expect_folder(folder / component)
        read_json(folder / component / "config.json")
        open_weights(weight_file(folder / component, "model"))


def _tokenize(kind: Any, folder: Path, length: int | None = None, *, padded: bool = True) -> Tensor:
    _check_vocabulary(kind, folder)
    try:
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: {_first_line(error)}") from None
    padding = "max_length" if padded else "do_not_pad"
    length = length or tokenizer.model_max_length
    return tokenizer("", padding=padding, max_length=length, truncation=True, return_tensors="pt").input_ids


def _check_vocabulary(kind: Any, folder: Path) -> None:
    _expect_folder(folder)
    # Without these files the library silently creates an empty vocabulary.
    files = sorted(set(kind.vocab_files_names.values()))
    if not any((folder / file).is_file() for file in files):
        raise CheckpointError(f"{folder}: expected one of {', '.join(files)}, found none")


def _encoder(kind: Any, folder: Path) -> Any:
    _expect_folder(folder)
    try:
        with _quiet():
            encoder, report = kind.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype="auto",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # listed in the report
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: {_first_line(error)}") from None
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            raise CheckpointError(f"{folder}: {problem.replace('_', ' ')}: {sorted(map(str, report[problem]))[0]}")
    # T5 overflows float16.
    return (encoder.float() if encoder.dtype == torch.float16 else encoder).eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bar and its table of wrong keys, which we report ourselves."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


def _expect_folder(folder: Path) -> None:
    # Without this check the library takes the path for a name on the model hub.
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: folder not found; the released layout needs FLUX's text encoders and tokenizers"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
