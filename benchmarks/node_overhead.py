"""What the node costs outside the model, per 640x480 frame on one core: messages to tensors and back.

    python -m benchmarks.node_overhead

Medians over 50 runs of all rows in turn. Where sensor_msgs_py is installed, its packing of the same cloud stands beside
ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import torch
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, PointField
from std_msgs.msg import Header

from benchmarks.timing import interleaved_ms, machine, markdown
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.cloud import organized_cloud
from lotus2_ros.model.engine.device import keep_freed_memory
from lotus2_ros.ros.clouds import tensor_to_cloud
from lotus2_ros.ros.messages import image_to_tensor, tensor_to_image

WIDTH, HEIGHT = 640, 480
RUNS = 50
CLOUD = {"stride": 1, "min_depth": 0.0, "max_depth": math.inf, "edge_threshold": 0.05}


def inputs(image: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Message to tensor, by encoding."""
    picture = image.numpy()
    messages = {
        "rgb8": tensor_to_image(image, "rgb8", Header()),
        "bgr8": tensor_to_image(image.flip(-1), "bgr8", Header()),
        "mono8": tensor_to_image(image[..., 0], "mono8", Header()),
        "bayer_rggb8": tensor_to_image(image[..., 0], "bayer_rggb8", Header()),
        "uyvy": tensor_to_image(image[..., :2], "uyvy", Header()),
        "jpeg": CompressedImage(format="jpeg", data=cv2.imencode(".jpg", picture)[1].tobytes()),
    }
    return {
        f"{name} to tensor": (lambda message=message: image_to_tensor(message)) for name, message in messages.items()
    }


def outputs(image: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Depth, normals and an XYZRGB cloud to messages; the last row is all three."""
    camera = Camera.from_fov(WIDTH, HEIGHT, 60.0)
    depth, normals = 1 + torch.rand(HEIGHT, WIDTH), torch.rand(HEIGHT, WIDTH, 3)
    parts: dict[str, Callable[[], object]] = {
        "depth to Image": lambda: tensor_to_image(depth, "32FC1", Header()),
        "normals to Image": lambda: tensor_to_image(normals, "32FC3", Header()),
        "depth to XYZRGB cloud": lambda: tensor_to_cloud(
            organized_cloud(depth, camera, image, None, **CLOUD), Header()
        ),
    }
    steps = list(parts.values())
    return {**parts, "depth + normals + cloud": lambda: [step() for step in steps]}


def peer(image: torch.Tensor) -> dict[str, Callable[[], object]]:
    """The same cloud by sensor_msgs_py, where it is installed."""
    try:
        from sensor_msgs_py.point_cloud2 import create_cloud
    except ImportError:
        return {}
    camera = Camera.from_fov(WIDTH, HEIGHT, 60.0)
    depth = 1 + torch.rand(HEIGHT, WIDTH)
    names = ["x", "y", "z", "rgb"]
    fields = [PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate(names)]

    def pack() -> object:
        points = camera.unproject(depth).numpy().reshape(-1, 3)
        channels = image.numpy().reshape(-1, 3).astype(np.uint32)
        packed = (channels[:, 0] << 16 | channels[:, 1] << 8 | channels[:, 2]).view(np.float32)
        return create_cloud(Header(), fields, np.column_stack((points, packed)))

    return {"the same cloud by create_cloud": pack}


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed_memory()  # as with a model
    image = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8)
    depth, camera = torch.ones(HEIGHT, WIDTH), Camera.from_fov(WIDTH, HEIGHT, 60.0)
    cloud = tensor_to_cloud(organized_cloud(depth, camera, image, None, **CLOUD), Header())
    serialized = {"for comparison: serialize the cloud": lambda: serialize_message(cloud)}
    times = interleaved_ms({**inputs(image), **outputs(image), **peer(image), **serialized}, RUNS)
    print(
        f"{machine(torch.device('cpu'))}, one thread, {WIDTH}x{HEIGHT}\n\n{markdown(('', 'ms'), list(times.items()))}"
    )


if __name__ == "__main__":
    main()
