from dataclasses import replace

import pytest
import torch

from lotus2_ros.inference.annotations import Annotations, annotate, deviation
from lotus2_ros.inference.upsampling import BY_GRAY
from lotus2_ros.model.manifest import ModelSettings


class Model:
    """Decodes a latent to itself, as the first three of its channels."""

    has_uncertainty = False

    def __init__(self, upsampling="bilinear", predicts="disparity"):
        self.upsampling = upsampling
        self.settings = ModelSettings(tasks=("depth",), process_resolution=64, predicts=predicts)
        self.asked = []

    def decode(self, latents):
        self.asked.append(latents.shape)
        return latents[:, :3]


def blank(height, width):
    return torch.full((height, width, 3), 128, dtype=torch.uint8)


def flat(*values, height=4, width=6):
    return torch.stack([torch.full((3, height, width), value) for value in values])


def test_the_median_of_samples_is_the_answer_and_their_spread_the_uncertainty(generator):
    samples = torch.rand(3, 1, 4, 6, generator=generator).expand(-1, 3, -1, -1)
    found = annotate(Model(), {"depth": samples}, blank(4, 6))
    torch.testing.assert_close(found.disparity, samples[:, 0].median(dim=0).values)
    torch.testing.assert_close(found.uncertainty, deviation(samples[:, 0], found.disparity))
    assert float(found.uncertainty.min()) > 0


def test_samples_that_differ_in_scale_and_shift_alone_are_certain(generator):
    sample = 0.5 * torch.rand(1, 1, 4, 6, generator=generator).expand(-1, 3, -1, -1)
    found = annotate(Model(), {"depth": torch.cat((sample, 0.5 * sample + 0.1, 1.5 * sample + 0.2))}, blank(4, 6))
    assert found.uncertainty.shape == (4, 6) and float(found.uncertainty.max()) < 1e-6


def test_of_an_even_number_the_median_is_the_mean_of_the_two_in_the_middle():
    found = annotate(Model(), {"depth": flat(0.1, 0.9, 0.2, 0.4)}, blank(4, 6))
    torch.testing.assert_close(found.disparity, torch.full((4, 6), 0.3))


def test_one_sample_has_no_uncertainty():
    found = annotate(Model(), {"depth": flat(0.3)}, blank(4, 6))
    assert found.uncertainty is None and found.normals is None


def test_tasks_of_several_samples_are_decoded_at_once_and_told_apart():
    model = Model()
    left = flat(0.5, 0.5)
    left[:, 0] = 1.0  # the model's x is left
    found = annotate(model, {"depth": flat(0.2, 0.4), "normals": left}, blank(4, 6))
    assert model.asked == [(4, 3, 4, 6)]
    torch.testing.assert_close(found.disparity, torch.full((4, 6), 0.3))
    torch.testing.assert_close(found.normals, torch.tensor([-1.0, 0.0, 0.0]).expand(4, 6, 3))


@pytest.mark.parametrize(("upsampling", "between"), [("bilinear", True), ("nearest-exact", False)])
def test_annotations_come_back_as_the_model_says(upsampling, between):
    picture = flat(0.0)
    picture[..., 3:] = 1.0
    found = annotate(Model(upsampling), {"depth": picture}, blank(8, 12))
    assert bool(((found.disparity > 0) & (found.disparity < 1)).any()) == between
    assert found.disparity.shape == (8, 12) and found.disparity[0, 0] == 0 and found.disparity[0, -1] == 1


def test_a_guided_depth_has_its_edge_where_the_image_has_it():
    picture = flat(0.2, height=24, width=32)
    picture[..., 16:] = 0.8
    image = blank(96, 128)
    image[:, :62], image[:, 62:] = 40, 220  # 2 pixels left of the edge of the picture
    plain, guided = (
        annotate(Model(), {"depth": picture}, image, guidance=guidance).disparity for guidance in (None, BY_GRAY)
    )
    steps = [depth.diff(dim=1)[48].argmax() for depth in (plain, guided)]
    assert abs(int(steps[0]) - 63) <= 1 and int(steps[1]) == 61
    assert float(guided[48, 62] - guided[48, 61]) > 3 * float(plain.diff(dim=1).max())


def test_no_tasks_no_annotations():
    found = annotate(Model(), {}, blank(4, 6))
    assert found == Annotations()


def test_what_a_model_of_depths_says_is_depth_until_it_is_inverted():
    found = replace(
        annotate(Model(predicts="depth"), {"depth": flat(0.2, 0.3, 0.9)}, blank(4, 6)),
        uncertainty=torch.full((4, 6), 0.1),
    )
    assert found.disparity is None
    torch.testing.assert_close(found.affine_depth, torch.full((4, 6), 0.3))
    inverted = found.inverted(0.5)
    torch.testing.assert_close(inverted.disparity, torch.full((4, 6), 0.5 * 0.7 / 0.8))
    torch.testing.assert_close(inverted.uncertainty, torch.full((4, 6), 0.1 * 0.5 * 1.5 / 0.8**2))


def test_answers_deviate_whatever_their_scales_and_shifts(generator):
    answer, noise = (torch.rand(8, 12, generator=generator) for _ in range(2))
    again = answer + 0.1 * noise
    assert float(deviation(torch.stack((answer, 0.3 * answer + 0.4)), answer).max()) < 1e-6
    found = deviation(torch.stack((answer, again)), answer)
    torch.testing.assert_close(deviation(torch.stack((answer, 0.3 * again + 0.4)), answer), found, atol=1e-6, rtol=1e-4)
    covariance = torch.cov(torch.stack((answer.flatten(), again.flatten())), correction=0)
    fitted = answer.mean() + covariance[0, 1] / covariance[1, 1] * (again - again.mean())
    torch.testing.assert_close(found, torch.stack((answer, fitted)).std(dim=0, correction=0), atol=1e-6, rtol=1e-4)
    assert deviation(torch.stack((answer, torch.zeros(8, 12))), answer).isfinite().all()
