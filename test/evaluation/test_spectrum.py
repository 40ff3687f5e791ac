import math

import pytest
import torch
import torch.nn.functional as F

from lotus2_ros.evaluation.spectrum import BINS, high_frequency_ratio, patch_grid, power_spectrum, radial_average

HEIGHT, WIDTH = 60, 80


def wave(cycles_per_pixel, angle=0.0, amplitude=1.0):
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    along = math.cos(angle) * columns + math.sin(angle) * rows
    return amplitude * torch.sin(2 * math.pi * cycles_per_pixel * along.double())


@pytest.mark.parametrize("frequency", [0.1, 0.22, 0.4])
@pytest.mark.parametrize("angle", [0.0, 0.5, math.pi / 2])
def test_a_wave_is_found_at_its_frequency_whatever_its_direction(frequency, angle):
    profile = radial_average(power_spectrum(5 + wave(frequency, angle)))
    assert profile.shape == (BINS,)
    assert abs((profile.argmax() + 0.5) / BINS - frequency / 0.5) < 2 / BINS


def test_power_is_the_square_of_the_amplitude():
    one, three = (radial_average(power_spectrum(wave(0.2, amplitude=a))).max() for a in (1, 3))
    assert three / one == pytest.approx(9)


def test_the_ratio_counts_what_lies_above_half_the_nyquist_frequency():
    low, high = wave(0.1), wave(0.35, 0.3)
    truth = power_spectrum(low + high)
    assert high_frequency_ratio(truth, truth) == 1.0
    assert high_frequency_ratio(power_spectrum(low + 0.5 * high), truth) == pytest.approx(0.25, rel=1e-2)
    assert high_frequency_ratio(power_spectrum(low), truth) < 1e-3


def test_a_window_keeps_a_slope_from_looking_like_detail():
    slope = torch.linspace(0, 1, WIDTH).double().expand(HEIGHT, WIDTH)
    edge = (slope > 0.5).double()
    assert high_frequency_ratio(power_spectrum(slope), power_spectrum(edge)) < 1e-3
    blurred = F.avg_pool2d(F.pad(edge[None, None], (2, 2, 2, 2), mode="replicate"), 5, 1)[0, 0]
    assert high_frequency_ratio(power_spectrum(blurred), power_spectrum(edge)) < 0.3


def test_gaps_are_refused():
    with pytest.raises(ValueError, match="finite everywhere"):
        power_spectrum(torch.full((4, 4), torch.nan))


def noise(seed=0):
    return torch.randn(3, 96, 128, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grating(period, axis, amplitude):
    """(96, 128)"""
    places = torch.arange((96, 128)[axis], dtype=torch.float64)
    waves = amplitude * torch.cos(2 * math.pi * places / period)
    return waves[:, None].expand(96, 128) if axis == 0 else waves.expand(96, 128)


@pytest.mark.parametrize("seed", range(3))
def test_noise_edges_and_a_slope_have_no_grid(seed):
    scene = noise(seed) + torch.linspace(0, 30, 128, dtype=torch.float64)
    scene[..., 40:, :70] += 5
    assert 0.7 < patch_grid(scene, 8) < 1.4


@pytest.mark.parametrize("axis", [0, 1])
def test_a_grid_of_patches_is_found_on_either_axis(axis):
    plain = patch_grid(noise(), 8)
    weak, strong = (patch_grid(noise() + grating(8, axis, amplitude), 8) for amplitude in (1.0, 2.0))
    assert weak > 2 * plain and strong > 1.7 * weak
    assert patch_grid(noise() + grating(8, 0, 2.0) + grating(8, 1, 2.0), 8) > 3 * strong


def test_waves_of_other_lengths_are_no_grid():
    for period in (5, 12):
        assert patch_grid(noise() + grating(period, 1, 1.0), 8) < 1.4


def test_a_grid_is_relative_to_the_detail_around_it():
    picture = noise() + grating(8, 1, 1.0)
    assert patch_grid(7 * picture + 3, 8) == pytest.approx(patch_grid(picture, 8))


def test_what_has_no_grid_to_measure():
    with pytest.raises(ValueError, match="expected at least 12 patches of 16 pixels along a side, got 8"):
        patch_grid(noise(), 16)
    with pytest.raises(ValueError, match="finite"):
        patch_grid(noise() / 0 * 0, 8)
