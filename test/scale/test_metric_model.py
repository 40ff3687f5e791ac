"""Metric depth models of transformers: tiny ones of each class through the real loading code, and exact ones."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.metric_model import MetricModel, configured_metric_model, load_metric_model
from lotus2_ros.scale.scale import RelativeGeometry

WIDTH, HEIGHT = 96, 64
CAMERA = Camera.from_intrinsics(WIDTH, HEIGHT, 80.0, 75.0, 40.0, 35.0)
IMAGE = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CPU = torch.device("cpu")
SIDE = 56


def depth_anything(kind="metric"):
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        image_size=SIDE, patch_size=14, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        out_features=["stage1", "stage2"], reshape_hidden_states=False,
    )  # fmt: skip
    return DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, reassemble_factors=[2, 1],
            neck_hidden_sizes=[8, 8], fusion_hidden_size=8, head_hidden_size=8, depth_estimation_type=kind,
            max_depth=20,
        )
    )  # fmt: skip


def zoedepth():
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation

    backbone = BeitConfig(
        image_size=32, patch_size=16, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
        use_relative_position_bias=False, use_absolute_position_embeddings=False,
    )  # fmt: skip
    return ZoeDepthForDepthEstimation(
        ZoeDepthConfig(
            backbone_config=backbone, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, bottleneck_features=8,
            num_attractors=[4, 2, 1, 1], bin_embedding_dim=8, num_relative_features=4, backbone_hidden_size=16,
            bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}],
        )
    )  # fmt: skip


def depth_pro():
    from transformers import DepthProConfig, DepthProForDepthEstimation

    vit = {
        "model_type": "dinov2", "num_hidden_layers": 3, "hidden_size": 16, "num_attention_heads": 2, "image_size": 16,
        "patch_size": 8,
    }  # fmt: skip
    return DepthProForDepthEstimation(
        DepthProConfig(
            patch_size=16, fusion_hidden_size=8, intermediate_hook_ids=[1, 0], intermediate_feature_dims=[8, 8],
            scaled_images_ratios=[0.5, 1], scaled_images_overlap_ratios=[0.0, 0.2],
            scaled_images_feature_dims=[8, 8], use_fov_model=False, image_model_config=vit, patch_model_config=vit,
            fov_model_config=vit,
        )
    )  # fmt: skip


SIZES = {depth_anything: {"height": SIDE, "width": SIDE}, zoedepth: {"height": 32, "width": 32}, depth_pro: 32}


@pytest.fixture
def save(tmp_path):
    def save(make, *args, **options) -> Path:
        torch.manual_seed(0)
        make(*args).save_pretrained(tmp_path / "model")
        text = json.dumps({"size": SIZES.get(make, SIDE)} | options)
        (tmp_path / "model" / "preprocessor_config.json").write_text(text)
        return tmp_path / "model"

    return save


@pytest.mark.parametrize("make", [depth_anything, zoedepth, depth_pro])
def test_checkpoints_of_each_class_give_a_reference(make, save):
    config = ScaleConfig(source="metric_model", metric_model=str(save(make)))
    reference = configured_metric_model(config, CPU).reference(IMAGE, CAMERA, 3.0)
    assert reference.source == "metric_model" and reference.stamp == 3.0 and reference.deviation > 0.1
    assert torch.isfinite(reference.depth).all() and (reference.depth > 0).all()


def test_sizes_keep_the_shape_of_the_image_where_the_checkpoint_wants_it(save):
    path = save(depth_anything, keep_aspect_ratio=True, ensure_multiple_of=14)
    assert load_metric_model(str(path), CPU).depth(IMAGE, CAMERA).shape == (56, 84)


def test_no_model_is_loaded_unless_it_may_be_used():
    assert configured_metric_model(ScaleConfig(), CPU) is None
    assert configured_metric_model(ScaleConfig(source="odometry", metric_model="nowhere"), CPU) is None


def test_a_model_of_relative_depth_is_refused_in_one_line(save):
    with pytest.raises(ValueError, match=r"scale.metric_model: .*it is a model of relative depth") as caught:
        load_metric_model(str(save(depth_anything, "relative")), CPU)
    assert "\n" not in str(caught.value)


def test_a_name_is_not_downloaded_unless_asked(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("it used the network"))
    with pytest.raises(ValueError, match=r"scale.metric_download:=true downloads it"):
        load_metric_model("nobody/has-this-model", CPU)


def test_a_folder_without_a_model_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"scale.metric_model: expected a metric depth model") as caught:
        load_metric_model(str(tmp_path), CPU)
    assert "\n" not in str(caught.value) and "download" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("model.safetensors", "not weights", "deserializing"),
        ("preprocessor_config.json", '{"size": [56, 56]}', "list"),
        ("preprocessor_config.json", '{"size": 56, "image_std": [0, 0, 0]}', "not finite"),
    ],
)
def test_a_model_that_does_not_run_is_refused_when_it_is_loaded(save, file, content, reason):
    path = save(depth_anything)
    (path / file).write_text(content)
    with pytest.raises(
        ValueError, match=f"scale.metric_model: expected a metric depth model, got .*{reason}"
    ) as caught:
        load_metric_model(str(path), CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["/no/such/folder", "~/model", "weights/of/a/model"])
def test_a_path_without_a_folder_is_no_name_on_the_hub(path):
    with pytest.raises(ValueError, match=r"there is no such folder$"):
        load_metric_model(path, CPU)


class Exact(torch.nn.Module):
    """A network whose answer is right: red is depth in units of 5 cm, or what DepthPro makes of it."""

    def __init__(self, model_type="depth_anything"):
        super().__init__()
        self.config = SimpleNamespace(model_type=model_type)
        self.zero = torch.nn.Parameter(torch.zeros(1))

    def forward(self, pixel_values):
        depth = 0.05 * 255 * pixel_values[:, 0]
        if self.config.model_type == "depth_pro":
            depth = 80.0 / WIDTH / depth  # inverse depth of a camera whose focal length is the image's width
        return SimpleNamespace(predicted_depth=depth)


PLAIN = {"size": {"height": HEIGHT, "width": WIDTH}, "image_mean": (0.0,) * 3, "image_std": (1.0,) * 3}


@pytest.mark.parametrize("model_type", ["depth_anything", "depth_pro"])
def test_an_exact_model_gives_exact_meters(model_type):
    depth = 0.05 * IMAGE[..., 0].clamp_min(20).float()
    image = IMAGE.clamp_min(20)
    model = MetricModel(Exact(model_type), PLAIN)
    torch.testing.assert_close(model.depth(image, CAMERA), depth, rtol=1e-3, atol=1e-3)
    reference = model.reference(image, CAMERA, 1.0)
    frame = RelativeGeometry((1 / depth - 0.05) / 0.9, image, None, CAMERA, 1.0)
    scale = ScaleFilter().align(frame, reference, ScaleConfig(metric_model="exact"))
    assert scale.source == "metric_model" and scale.metric and scale.deviation >= 0.15
    assert scale.scale == pytest.approx(0.9, rel=1e-2) and scale.shift == pytest.approx(0.05, abs=2e-3)


def test_twice_the_focal_length_is_twice_the_depth_of_depth_pro():
    model, image = MetricModel(Exact("depth_pro"), PLAIN), IMAGE.clamp_min(20)
    longer = Camera.from_intrinsics(WIDTH, HEIGHT, 160.0, 150.0, 40.0, 35.0)
    torch.testing.assert_close(model.depth(image, longer), 2 * model.depth(image, CAMERA))
