from __future__ import annotations

from types import SimpleNamespace

import torch

from benchmarks import consistency


def test_what_is_seen_moved_lies_where_it_was(generator):
    """A model that says what it sees gives the same answer wherever it is shown the image."""
    image = torch.randint(0, 256, (48, 80, 3), dtype=torch.uint8, generator=generator)
    says = SimpleNamespace(
        process_resolution=80,
        model=SimpleNamespace(multiple=8),
        predict=lambda seen, tasks: SimpleNamespace(disparity=seen[..., 0].float()),
    )
    truth = image[..., 0].float()
    moved = consistency.seen_moved(says, image)
    assert torch.equal(moved[:-4, :-4], truth[:-4, :-4]) and not torch.equal(moved, truth)
