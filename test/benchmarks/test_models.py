from __future__ import annotations

import torch

from benchmarks.models import TASKS, TINY, make_plain


def test_plain_model_is_the_network_of_the_adapted_one():
    """diffusers' own forward, called as for the public model, gives what our pass over its blocks gives."""
    from lotus2_ros.model.lotus2.trainable import TrainableLotus2

    model = make_plain(TINY, TASKS[0], torch.device("cpu"), torch.float32)
    model.conditioner.timestep_dtype = "float32"
    latent = torch.randn(1, 16, 6, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for stage, timestep in (("core_predictor", 1.0), ("detail_sharpener", 5.0)):
            plain = model.transform(latent, stage, TASKS[0], timestep)
            ours = TrainableLotus2.transform(model, latent, stage, TASKS[0], timestep)
            assert (plain - ours).norm() <= 1e-5 * ours.norm()
