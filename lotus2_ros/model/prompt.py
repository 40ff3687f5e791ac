"""The embedding of the empty prompt by a model's text encoders."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast
from transformers.utils import logging as library

from lotus2_ros.config.errors import first_line
from lotus2_ros.model.layers.precision import multiplies_bfloat16
from lotus2_ros.model.manifest import naming
from lotus2_ros.model.memory import is_shortage
from lotus2_ros.model.progress import ProgressLog
from lotus2_ros.model.weights import CheckpointError, WeightFile, check_weights, open_weights, read_json, weight_file

log = logging.getLogger(__name__)

# No attention mask is used, so all tokens take part, although all but the first are padding.
T5_TOKENS = 512
# Names of the one table of token embeddings; a file has it under one or both.
T5_TABLES = ("shared.weight", "encoder.embed_tokens.weight")


def embed_empty_prompt(folder: Path, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """(prompt_embeds (1, 512, D) from T5, pooled (1, P) from CLIP at its first end-of-text token), on the CPU.

    If the GPU has too little memory, the CPU does it. Raises CheckpointError that names the file.
    """
    try:
        return _embed_on(device, folder)
    except RuntimeError as error:
        if device.type == "cpu" or not is_shortage(error):
            raise
        log.warning("%s has too little memory for the text encoders, so they run on the CPU", device)
    return _embed_on(torch.device("cpu"), folder)


@torch.no_grad()
def _embed_on(device: torch.device, folder: Path) -> tuple[Tensor, Tensor]:
    clip_ids = _tokenize(CLIPTokenizer, folder / "tokenizer").to(device)
    t5_ids = _tokenize(T5TokenizerFast, folder / "tokenizer_2", T5_TOKENS)
    clip = _encoder(CLIPTextModel, folder / "text_encoder")
    pooled = clip.to(device, _fast_dtype(clip.dtype, device))(clip_ids).pooler_output
    del clip
    prompt_embeds = embed_with_t5(folder / "text_encoder_2", t5_ids, device)
    for tensor, component in ((pooled, "text_encoder"), (prompt_embeds, "text_encoder_2")):
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{folder / component}: its embedding of the empty prompt has NaN or infinite values")
    return prompt_embeds.cpu().clone(), pooled.cpu().clone()


@torch.no_grad()
def embed_with_t5(folder: Path, ids: Tensor, device: torch.device) -> Tensor:
    """ids (1, T) on the CPU -> the last hidden state (1, T, D) of a T5 encoder, whose layers are in memory one by one.

    It computes in the dtype of the file if the device is fast in it, else in float32.
    """
    encoder, weights = _open_t5(folder)
    table = next(name for name in T5_TABLES if name in weights)
    embeds = weights[table].read(table)[ids]
    dtype = _fast_dtype(embeds.dtype, device)
    blocks = {f"encoder.block.{i}.": block for i, block in enumerate(encoder.encoder.block)}
    progress = ProgressLog("T5 layer", len(blocks))

    def load(module: Any, prefix: str) -> None:
        state = {key: weights[prefix + key].read(prefix + key).to(device, dtype) for key in module.state_dict()}
        module.load_state_dict(state, assign=True)

    def unload(module: Any, *_: object) -> None:
        module.to("meta")
        progress.step()

    for prefix, block in blocks.items():
        block.register_forward_pre_hook(lambda module, _, prefix=prefix: load(module, prefix))
        block.register_forward_hook(unload)
    load(encoder.encoder.final_layer_norm, "encoder.final_layer_norm.")
    return encoder(inputs_embeds=embeds.to(device, dtype)).last_hidden_state


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
    _expect_folder(folder / "text_encoder")
    read_json(folder / "text_encoder" / "config.json")
    open_weights(weight_file(folder / "text_encoder", "model"))
    _open_t5(folder / "text_encoder_2")


def _open_t5(folder: Path) -> tuple[Any, Mapping[str, WeightFile]]:
    """A T5 encoder on the meta device and the files of its weights, by key. Keys and shapes are checked."""
    _expect_folder(folder)
    config = read_json(folder / "config.json")
    with naming(folder / "config.json"), torch.device("meta"):
        encoder = T5EncoderModel(T5Config.from_dict(config)).eval()
    file = weight_file(folder, "model")
    # A file of the whole T5 has its decoder, too.
    weights = {key: home for key, home in open_weights(file).items() if not key.startswith(("decoder.", "lm_head."))}
    tables = [name for name in T5_TABLES if name in weights] or T5_TABLES[:1]
    expected = {key: tensor for key, tensor in encoder.state_dict().items() if key not in T5_TABLES}
    expected |= dict.fromkeys(tables, encoder.shared.weight)
    check_weights(file, {key: home.header[key] for key, home in weights.items()}, expected)
    return encoder, weights


def _fast_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype in which to run an encoder stored in `dtype`. T5 overflows float16."""
    return dtype if dtype == torch.bfloat16 and multiplies_bfloat16(device) else torch.float32


def _tokenize(kind: Any, folder: Path, length: int | None = None, *, padded: bool = True) -> Tensor:
    _check_vocabulary(kind, folder)
    try:
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: {first_line(error)}") from None
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
        raise CheckpointError(f"{folder}: {first_line(error)}") from None
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            raise CheckpointError(f"{folder}: {problem.replace('_', ' ')}: {sorted(map(str, report[problem]))[0]}")
    # T5 overflows float16.
    return (encoder.float() if encoder.dtype == torch.float16 else encoder).eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bar and its table of wrong keys, which we report ourselves."""
    level = library.get_verbosity()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        library.enable_progress_bar()


def _expect_folder(folder: Path) -> None:
    # Without this check the library takes the path for a name on the model hub.
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: folder not found; the released layout needs FLUX's text encoders and tokenizers"
        )
