"""README.md of an exported model: what a program that runs the graphs must know."""

from __future__ import annotations

from lotus2_ros.model.export.manifest import UNCERTAINTY, ExportManifest
from lotus2_ros.model.manifest import ModelSettings

TEXT = """# {name}, exported

ONNX graphs (opset {opset}, {precision}) of {name} for images of {width} x {height}. License: {licence}. Sizes are
fixed. All inputs and outputs are float32. `export.json` holds what is said here for programs.

| graph | inputs | output | difference to torch |
|---|---|---|---:|
{graphs}

The difference is the largest of all values, relative to the largest value where that is above 1.

## From image to annotation

1. Resize the RGB image to {width} x {height}{antialias}, as (1, 3, {height}, {width}), and scale it:
   `image = rgb / 127.5 - 1`.
2. `encode`: `image` -> `latent`.
3. `core_<task>`: `latent` -> `annotation`.{noise}
4. `decode`: `annotation` -> `picture` in [0, 1]. {pictures}{uncertainty}
{sharpener}
## Run it

With lotus2_ros, by ONNX Runtime: `lotus2_ros.load("{folder}")`, or `model.path` of the node. With TensorRT:

```
{trtexec}
```
"""
DISPARITY = "Depth: the mean of the three channels is the disparity, up to scale and shift, 1 = near."
DEPTH = "Depth: the mean of the three channels is the depth, up to scale and shift, 0 = near."
NORMALS = (
    "Normals: `1 - 2 * picture`, scaled to length 1, in the camera's optical frame (x right, y down, z forward), "
    "toward the camera."
)
DEVIATION = " `uncertainty`: depth's `annotation` -> `deviation`, one standard deviation of the disparity."
NOISE = (
    " The last {channels} channels of `latent` are noise: append normally distributed numbers to the latent of "
    "`encode`. Other noise gives another sample."
)
SHARPENER = """
## Sharpen

Repeat `sharpen_<task>`: `annotation`, `timestep`, `delta` -> `sharpened`, the next `annotation`; then `decode`. For
{steps} steps (`export.json` has other numbers):

| step | timestep | delta |
|---:|---:|---:|
{rows}
"""


def readme(manifest: ExportManifest, settings: ModelSettings, folder: str, shares_weights: bool) -> str:
    height, width = manifest.size
    graphs = "\n".join(
        f"| `{name}.onnx` | {', '.join(_value(*item) for item in graph.inputs.items())} "
        f"| {_value(graph.output, graph.shape)} | {'not checked' if graph.error is None else f'{graph.error:.1e}'} |"
        for name, graph in manifest.graphs.items()
    )
    depth = DEPTH if settings.predicts == "depth" else DISPARITY
    pictures = {"depth": depth, "normals": NORMALS}
    # A graph in half precision says where it computes in float32, so TensorRT must not choose by itself.
    option = " --stronglyTyped" if manifest.precision == "fp16" else ""
    text = TEXT.format(
        name=manifest.name,
        opset=manifest.opset,
        precision=manifest.precision,
        width=width,
        height=height,
        licence=manifest.licence,
        graphs=graphs,
        antialias=" (bilinear, with a low-pass filter where it gets smaller)" if settings.antialias else " (bilinear)",
        noise=NOISE.format(channels=manifest.noise_channels) if manifest.noise_channels else "",
        uncertainty=DEVIATION if UNCERTAINTY in manifest.graphs else "",
        pictures=" ".join(pictures[task] for task in manifest.tasks),
        sharpener=_sharpener(manifest, settings),
        folder=folder,
        trtexec="\n".join(f"trtexec --onnx={name}.onnx --saveEngine={name}.plan{option}" for name in manifest.graphs),
    )
    return text + ("\nAll graphs have their weights in `weights.bin`; keep it beside them.\n" if shares_weights else "")


def _sharpener(manifest: ExportManifest, settings: ModelSettings) -> str:
    if not manifest.sharpened:
        return ""
    schedule = manifest.schedules[str(settings.sharpener_steps)]
    pairs = zip(schedule.sigmas, schedule.sigmas[1:], strict=False)
    rows = "\n".join(
        f"| {number} | {timestep:.6g} | {following - sigma:.6g} |"
        for number, (timestep, (sigma, following)) in enumerate(zip(schedule.timesteps, pairs, strict=True), start=1)
    )
    return SHARPENER.format(steps=settings.sharpener_steps, rows=rows)


def _value(name: str, shape: tuple[int, ...]) -> str:
    return f"`{name}` {' x '.join(map(str, shape))}"
