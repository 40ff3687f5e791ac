"""How much memory `lotus2 prepare` needs, on a random model in the released layout.

    python -m benchmarks.prepare_memory [--width 384] [--precision bfloat16 ...]

Peak resident memory of a process that prepares it, mapped pages of files included, less what the imports take, beside
1.3 x the largest shard + the bundle.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from benchmarks import models
from benchmarks.timing import machine, markdown
from lotus2_ros.model.layers.linear import PRECISIONS
from lotus2_ros.model.lotus2.base import CORE, SHARPENER
from lotus2_ros.model.lotus2.released import locate
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.manifest import ModelSettings
from lotus2_ros.model.prompt import T5_TOKENS
from lotus2_ros.model.weights import stored_state

# The C library gives a tensor of the released model's size back to the system when it is dropped, but keeps smaller
# ones in a heap that grows ragged: here it has to give back what is small, too.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "262144"}
# As many as FLUX.1-dev has.
DOUBLE_BLOCKS, SINGLE_BLOCKS = 19, 38
HEAD, POOLED, RANKS = 64, 64, {"depth": 16, "normals": 32}
VAE = models.VAE | {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1}
# Printed by the process that prepares: KB at most since the imports were done, and KB then.
MEASURED = """
import sys
from pathlib import Path
from lotus2_ros.cli import main
from lotus2_ros.prepare import convert, sources

def status(key):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if key in line)

Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
before = status("VmRSS")
code = main(sys.argv[1:])
print(status("VmHWM") - before, before)
sys.exit(code)
"""


def write_released(folder: Path, width: int, shard_bytes: int) -> None:
    """A random model of that width, bfloat16, in shards of at most so many bytes."""
    torch.manual_seed(0)
    transformer = {
        "num_layers": DOUBLE_BLOCKS,
        "num_single_layers": SINGLE_BLOCKS,
        "attention_head_dim": HEAD,
        "num_attention_heads": width // HEAD,
        "joint_attention_dim": width,
        "pooled_projection_dim": POOLED,
        "guidance_embeds": True,
        "axes_dims_rope": (8, 28, 28),
    }
    configs = {"vae": VAE, "transformer": transformer, "scheduler": {"use_dynamic_shifting": True}}
    with torch.device("meta"):
        settings = ModelSettings(tasks=tuple(RANKS), process_resolution=1024)
        model = TrainableLotus2.from_config(configs, settings, prompt_tokens=T5_TOKENS)
        for task, rank in RANKS.items():
            for stage in (CORE, SHARPENER):
                model.add_adapter(stage, task, rank)
    for name, file in (("vae", "config.json"), ("transformer", "config.json"), ("scheduler", "scheduler_config.json")):
        (folder / name).mkdir(parents=True)
        (folder / name / file).write_text(json.dumps(model.configs[name]))
    _write_weights(model, folder, shard_bytes)
    _write_text_encoders(folder, width, shard_bytes)


def _write_weights(model: TrainableLotus2, folder: Path, shard_bytes: int) -> None:
    files: dict[Path, dict[str, torch.Size]] = defaultdict(dict)
    for name, tensor in stored_state(model).items():
        if not name.startswith("conditioner."):
            file, key = locate(folder, folder, name)
            files[file][key] = tensor.shape
    for file, shapes in files.items():
        if file.parent.name != "transformer":
            save_file(dict(_random(shapes)), file)
            continue
        index: dict[str, str] = {}
        shard: dict[str, Tensor] = {}
        for key, tensor in _random(shapes):
            if sum(other.nbytes for other in shard.values()) + tensor.nbytes > shard_bytes:
                _write_shard(file, shard, index)
            shard[key] = tensor
        _write_shard(file, shard, index)
        file.with_name(f"{file.name}.index.json").write_text(json.dumps({"weight_map": index}))


def _write_shard(file: Path, shard: dict[str, Tensor], index: dict[str, str]) -> None:
    """Empties the shard, adds it to the index."""
    name = f"{file.stem}-{len(set(index.values())) + 1:05}.safetensors"
    save_file(shard, file.with_name(name))
    index |= dict.fromkeys(shard, name)
    shard.clear()


def _random(shapes: dict[str, torch.Size]) -> Iterator[tuple[str, Tensor]]:
    for key, shape in shapes.items():
        yield key, (0.02 * torch.randn(shape)).to(torch.bfloat16)


def _write_text_encoders(folder: Path, width: int, shard_bytes: int) -> None:
    """As large as a shard, T5; tokenizers that know no words."""
    layers = max(1, shard_bytes // (2 * 16 * width**2))
    t5 = T5Config(
        d_model=width, d_ff=4 * width, num_layers=layers, num_heads=8, d_kv=width // 8, vocab_size=32, is_gated_act=True
    )
    T5EncoderModel(t5).to(torch.bfloat16).save_pretrained(folder / "text_encoder_2")
    words = {word: i for i, word in enumerate(("<|startoftext|>", "<|endoftext|>"))}
    clip = CLIPTextConfig(
        hidden_size=POOLED,
        intermediate_size=POOLED,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=32,
        bos_token_id=0,
        eos_token_id=1,
    )
    CLIPTextModel(clip).to(torch.bfloat16).save_pretrained(folder / "text_encoder")
    CLIPTokenizer(vocab=words, merges=[], model_max_length=77).save_pretrained(folder / "tokenizer")
    pieces = [(word, 0.0) for word in ("<pad>", "</s>", "<unk>")]
    T5TokenizerFast(vocab=pieces, extra_ids=0).save_pretrained(folder / "tokenizer_2")


def measure(released: Path, output: Path, precision: str) -> tuple[int, int, int]:
    """Bytes at the most while a bundle is prepared, of the largest shard, of the bundle."""
    command = [
        "prepare",
        "--flux",
        released,
        "--lotus2",
        released,
        "--output",
        output,
        "--device",
        "cpu",
        "--precision",
        precision,
    ]
    result = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, command)],
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise RuntimeError(result.stderr)
    peak = int(result.stdout.split()[-2]) * 1024
    shard = max(file.stat().st_size for file in released.rglob("*.safetensors"))
    return peak, shard, sum(file.stat().st_size for file in output.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--width", type=int, default=384, help="of the transformer (%(default)s)")
    parser.add_argument("--shard-mb", type=int, default=100, help="of the transformer at the most (%(default)s)")
    parser.add_argument("--precision", nargs="*", choices=PRECISIONS, default=PRECISIONS, help="(all)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        released = Path(folder, "released")
        write_released(released, args.width, args.shard_mb * 10**6)
        size = sum(file.stat().st_size for file in released.rglob("*.safetensors"))
        print(f"{machine(torch.device('cpu'))}; released files of {size / 1e6:.0f} MB\n")
        rows = []
        for precision in args.precision:
            peak, shard, bundle = measure(released, Path(folder, precision), precision)
            rows.append((precision, *(value / 1e6 for value in (shard, bundle, 1.3 * shard + bundle, peak))))
        print(markdown(("precision", "largest shard, MB", "bundle, MB", "limit, MB", "peak, MB"), rows))


if __name__ == "__main__":
    main()
