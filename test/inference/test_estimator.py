import pytest
import torch
from card import to_card

from lotus2_ros import scenes
from lotus2_ros.config import Config
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.annotations import Annotations
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.loading import load_estimator
from lotus2_ros.model.load import load_model
from lotus2_ros.scale.reference import Reference

HEIGHT, WIDTH = 37, 53
IMAGE = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CAMERA = Camera.from_intrinsics(WIDTH, HEIGHT, 40.0, 45.0, 20.0, 15.0)


@pytest.fixture
def estimator(small) -> Estimator:
    return Estimator(small, Config())


def decoding(estimator, monkeypatch, picture):
    """Let the VAE decode every latent to ``picture`` (3, h, w) in [0, 1]."""
    monkeypatch.setattr(estimator.model, "decode", lambda latents: picture.expand(len(latents), *picture.shape))
    return estimator.predict(IMAGE, CAMERA)


def test_everything_has_the_size_of_the_image(estimator):
    geometry = estimator.predict(IMAGE, CAMERA)
    assert geometry.disparity.shape == geometry.depth.shape == (HEIGHT, WIDTH)
    assert geometry.normals.shape == geometry.points().shape == (HEIGHT, WIDTH, 3)
    assert geometry.disparity.min() >= 0 and geometry.disparity.max() <= 1
    torch.testing.assert_close(geometry.normals.norm(dim=-1), torch.ones(HEIGHT, WIDTH))
    assert list(geometry.latency) == ["resize", "encode", "core", "decode", "align"]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("auto", 2e-2)])  # auto: bfloat16
def test_a_loaded_estimator_is_made_fast_and_says_the_same(random_bundle, dtype, tolerance):
    config = Config().updated({"model.path": str(random_bundle), "model.device": "cpu", "model.dtype": dtype})
    plain = Estimator(load_model(random_bundle, device="cpu").eval(), config).predict(IMAGE)
    loaded = load_estimator(config, live=True)
    assert loaded.process_resolution == loaded.model.settings.process_resolution  # on a CPU there is nothing to pick
    torch.testing.assert_close(loaded.predict(IMAGE).disparity, plain.disparity, rtol=0, atol=tolerance)


def test_the_same_image_gives_the_same_bits(estimator):
    first, second = estimator.predict(IMAGE), estimator.predict(IMAGE)
    assert torch.equal(first.disparity, second.disparity) and torch.equal(first.normals, second.normals)


def test_a_posterior_sample_depends_on_the_seed_alone(small):
    def disparity(seed):
        config = Config().updated({"model.posterior": "sample", "model.seed": seed})
        return Estimator(small, config).predict(IMAGE).disparity

    assert torch.equal(disparity(1), disparity(1)) and not torch.equal(disparity(1), disparity(2))


def test_disparity_is_the_mean_of_the_three_channels(estimator, monkeypatch):
    picture = torch.stack([torch.full((8, 8), value) for value in (0.1, 0.2, 0.6)])
    torch.testing.assert_close(decoding(estimator, monkeypatch, picture).disparity, torch.full((HEIGHT, WIDTH), 0.3))


@pytest.mark.parametrize(
    ("decoded", "optical"),
    [
        ((0.5, 0.5, 1.0), (0.0, 0.0, -1.0)),  # toward the camera
        ((0.5, 1.0, 0.5), (0.0, -1.0, 0.0)),  # up: a floor
        ((1.0, 0.5, 0.5), (-1.0, 0.0, 0.0)),  # left: a wall on the right
    ],
)
def test_convention_normals_are_in_the_optical_frame(estimator, monkeypatch, decoded, optical):
    picture = torch.tensor(decoded)[:, None, None].expand(3, 8, 8)
    normals = decoding(estimator, monkeypatch, picture).normals
    torch.testing.assert_close(normals, torch.tensor(optical).expand(HEIGHT, WIDTH, 3))


def test_normals_are_resized_before_they_are_normalized(estimator, monkeypatch):
    """Between two perpendicular unit vectors the resized one is shorter than 1; its length must be restored after."""
    picture = torch.full((3, 2, 2), 0.5)
    picture[2, :, 0] = 1.0
    picture[1, :, 1] = 1.0
    normals = decoding(estimator, monkeypatch, picture).normals
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(HEIGHT, WIDTH))
    torch.testing.assert_close(normals[5, WIDTH // 2], torch.tensor([0.0, -(0.5**0.5), -(0.5**0.5)]))


def test_only_the_tasks_asked_for(estimator):
    geometry = estimator.predict(IMAGE, tasks=["normals"])
    assert geometry.disparity is None and geometry.depth is None
    assert geometry.normals is not None and not geometry.scale.metric


@pytest.mark.parametrize(("tasks", "batch"), [(["depth"], 1), (["normals"], 1), (["depth", "normals"], 2)])
def test_one_encode_and_one_decode_for_all_tasks(estimator, monkeypatch, tasks, batch):
    alone = {task: estimator.predict(IMAGE, tasks=[task]) for task in tasks}
    sizes = {"encode": [], "decode": []}
    for name, seen in sizes.items():
        function = getattr(estimator.model, name)
        monkeypatch.setattr(estimator.model, name, lambda x, *more, f=function, s=seen: s.append(len(x)) or f(x, *more))
    both = estimator.predict(IMAGE, tasks=tasks)
    assert sizes == {"encode": [1], "decode": [batch]}
    if "depth" in tasks:
        torch.testing.assert_close(both.disparity, alone["depth"].disparity, rtol=0, atol=1e-5)
    if "normals" in tasks:
        torch.testing.assert_close(both.normals, alone["normals"].normals, rtol=0, atol=1e-4)


def test_warming_up_runs_what_a_frame_of_that_size_needs(estimator):
    assert estimator.is_new(HEIGHT, WIDTH)
    steps = estimator.warm_up(HEIGHT, WIDTH)
    assert [what for what, _ in steps] == ["53x37 core predictor of depth and normals", "53x37 detail sharpener"]
    assert estimator.is_new(HEIGHT, WIDTH)  # nothing has run
    for _, run in steps:
        run()
    assert not estimator.is_new(HEIGHT, WIDTH) and estimator.is_new(HEIGHT, 2 * WIDTH)
    assert not estimator.is_new(HEIGHT + 1, WIDTH)  # the model sees it at the same size
    estimator.config = Config().updated({"model.process_resolution": 32})
    assert estimator.is_new(HEIGHT, WIDTH)


def test_warming_up_to_a_size_that_is_too_small_is_refused(estimator):
    with pytest.raises(ValueError, match="too small"):
        estimator.warm_up(4, 90)[0][1]()


def test_a_reference_makes_it_metric(estimator):
    truth = 1 / (0.5 * estimator.predict(IMAGE).disparity + 0.2)
    geometry = estimator.predict(IMAGE, CAMERA, Reference(truth[::2, ::2].contiguous()))
    assert geometry.scale.metric
    exact = estimator.predict(IMAGE, CAMERA, Reference(truth))
    torch.testing.assert_close(exact.depth, truth, rtol=1e-3, atol=0)
    torch.testing.assert_close(exact.points()[..., 2], exact.depth)


@pytest.mark.parametrize("wanted", [True, False])
def test_depth_is_infinite_in_the_sky(estimator, monkeypatch, wanted):
    disparity = torch.linspace(-0.5, 1, HEIGHT).clamp(min=0)[:, None].repeat(1, WIDTH)
    normals = torch.where((disparity > 0)[..., None], torch.tensor([0.0, -1.0, 0.0]), torch.tensor([0.0, 0.0, -1.0]))
    for module in ("estimator", "sharpening"):
        monkeypatch.setattr(
            f"lotus2_ros.inference.{module}.annotate", lambda *_, **__: Annotations(disparity, normals=normals)
        )
    estimator.config = Config().updated({"depth.sky": wanted})
    coarse = estimator.predict(IMAGE, CAMERA)
    sharp = estimator.sharpen(coarse, steps=1).result()
    for geometry in (coarse, sharp):
        assert torch.isposinf(geometry.depth[:8]).all() == wanted and torch.isfinite(geometry.depth[16:]).all()
        assert torch.isnan(geometry.points()[:8]).all() == wanted and torch.isfinite(geometry.points()[16:]).all()
        assert torch.equal(geometry.disparity, disparity) and torch.equal(geometry.normals, normals)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(5, 7, 3), r"uint8, got \(5, 7, 3\) of torch.float32; multiply by 255"),
        (torch.zeros(7, 90, 3, dtype=torch.uint8), "too small"),
    ],
)
def test_bad_images_are_refused(estimator, image, message):
    with pytest.raises(ValueError, match=message):
        estimator.predict(image)


def test_a_camera_of_another_size_is_refused(estimator):
    with pytest.raises(ValueError, match=r"53 x 37, got 53 x 36; use camera\.resize"):
        estimator.predict(IMAGE, Camera.from_fov(WIDTH, HEIGHT - 1, 60))


def room_as_depth(monkeypatch, estimator):
    """A rendered room, and an estimator whose model says its depth up to scale and shift, and its normals."""
    view = scenes.view(203, WIDTH, HEIGHT, "room")
    near, far = view.depth.min(), view.depth.max()
    said = Annotations(affine_depth=(view.depth - near) / (far - near), normals=view.normals)
    monkeypatch.setattr("lotus2_ros.inference.estimator.annotate", lambda *_, **__: said)
    return view


def test_a_model_of_depths_is_metric_with_a_reference(estimator, monkeypatch):
    view = room_as_depth(monkeypatch, estimator)
    geometry = estimator.predict(IMAGE, CAMERA, Reference(view.depth.float()))
    assert geometry.scale.metric
    torch.testing.assert_close(geometry.depth, view.depth.float(), rtol=0.01, atol=0)
    assert geometry.disparity.max() <= 1 and geometry.disparity.min() >= 0
    nearest = geometry.disparity.argmax()
    assert view.depth.flatten()[nearest] == view.depth.min()


def test_a_model_of_depths_is_undistorted_by_its_normals_alone(estimator, monkeypatch):
    view = room_as_depth(monkeypatch, estimator)
    geometry = estimator.predict(IMAGE, view.camera)
    assert not geometry.scale.metric and geometry.scale.source == "normals"
    ratio = geometry.depth / view.depth
    assert float(ratio.std() / ratio.mean()) < 0.1


def test_with_the_mirrored_image_a_model_is_unsure_where_its_answers_differ(small):
    mirror = Estimator(small, Config().updated({"model.mirror": True}))
    plain, both = Estimator(small, Config()).predict(IMAGE), mirror.predict(IMAGE)
    assert plain.uncertainty is None and torch.equal(both.disparity, plain.disparity)
    assert both.uncertainty.shape == (HEIGHT, WIDTH) and both.uncertainty.min() >= 0 and both.uncertainty.max() > 1e-4
    assert list(both.latency) == ["resize", "encode", "core", "decode", "mirror", "align"]
    assert mirror.predict(IMAGE, tasks=("normals",)).uncertainty is None


def test_an_uncertainty_head_speaks_for_the_image_and_the_sharpened_one_until_it_is_mirrored(bundle_with_uncertainty):
    model = load_model(bundle_with_uncertainty, device="cpu", dtype="float32")
    estimator = Estimator(model, Config())
    found = estimator.predict(IMAGE)
    expected = model.predict_uncertainty(found.latents["depth"])
    wanted = torch.nn.functional.interpolate(expected, (HEIGHT, WIDTH), mode="bilinear")[0, 0]
    torch.testing.assert_close(found.uncertainty, wanted)
    assert float(wanted.min()) > 0 and float(wanted.std()) > 0
    sharp = estimator.sharpen(found).result().uncertainty
    assert sharp.shape == wanted.shape and not torch.equal(sharp, wanted)
    mirrored = Estimator(model, Config().updated({"model.mirror": True})).predict(IMAGE)
    assert torch.equal(mirrored.disparity, found.disparity) and not torch.allclose(mirrored.uncertainty, wanted)
    assert estimator.predict(IMAGE, tasks=("normals",)).uncertainty is None


def test_the_mirrored_answer_is_turned_back_before_it_is_compared(estimator, monkeypatch):
    """The network says what it sees, whichever way round: two answers that are one."""
    estimator.config = Config().updated({"model.mirror": True})
    monkeypatch.setattr(estimator.model, "encode", lambda pixels, generator: pixels)
    monkeypatch.setattr(estimator.model, "predict", lambda latent, tasks: dict.fromkeys(tasks, latent))
    monkeypatch.setattr(estimator.model, "decode", lambda latents: latents * 0.5 + 0.5)
    geometry = estimator.predict(IMAGE)
    assert float(geometry.disparity.std()) > 0.05 and float(geometry.uncertainty.max()) < 1e-5


@pytest.mark.parametrize("family", ["lotus-2", "lotus-g"])
def test_a_model_on_a_gpu_waits_for_nothing(family, card, image, bundle_with_uncertainty, shared, tmp_path):
    """Nothing of it is left on the CPU either."""
    folder = bundle_with_uncertainty if family == "lotus-2" else tmp_path / "lotus-depth-g-v1-0"
    if family == "lotus-g":
        folder.symlink_to(shared / "golden" / "tiny-lotus-g")
    model = load_model(folder, device="cpu", dtype="float32", samples=2)
    config = Config().updated({"model.process_resolution": 64})
    expected = Estimator(model, config).unaligned(image)
    model.train(False)  # empties the cache of constants
    with torch.inference_mode(), card:
        to_card(model)
        estimator = Estimator(model, config)
        for _ in range(2):  # the first time constants are copied
            card.waits.clear()
            found = estimator.unaligned(image)
            for task in filter(model.has_sharpener, model.tasks):
                model.sharpen(found.latents[task], task, steps=2).result()
        assert not card.waits
        for name in ("disparity", "affine_depth", "normals", "uncertainty"):
            ours, wanted = getattr(found.annotations, name), getattr(expected.annotations, name)
            assert (ours is None) == (wanted is None)
            if wanted is not None:
                torch.testing.assert_close(ours.held, wanted)
