"""Every parameter of the node and the command line: the one place of defaults, limits and help texts.

A field of a group is the parameter ``<group>.<field>``, declared with :func:`parameter`. ``ros/parameters.py`` makes a
ROS parameter of it, ``lotus2 params`` writes it to ``config/perception.yaml`` and ``docs/parameters.md``, and commands
offer it as an option. ``config.py`` assembles the groups.
"""

from __future__ import annotations

from dataclasses import dataclass

from lotus2_ros.config.declaration import NONE, TRANSFORM, parameter

TASKS = ("auto", "depth", "normals")
COMPRESSED_FORMATS = ("jpeg", "png", "webp", "bmp")  # of compressed images
STAMP_ROUNDING = 1e-6  # seconds


@dataclass(frozen=True)
class ModelConfig:
    """The model and how it computes."""

    path: str = parameter(
        "", "Folder of a bundle, of released files, or of an exported model; empty: the small bundled model"
    )
    device: str = parameter(
        "auto",
        "Device of the model; auto: cuda if there is one. openvino:GPU and openvino:NPU are Intel's, untested",
        choices=("auto", "cpu", "cuda", "openvino:DEVICE"),
    )
    engine: str = parameter(
        "auto",
        "What runs the model; openvino compiles it for each image size. auto: onnxruntime for an exported model; in "
        "the node on a cpu, the faster of torch and openvino for each stage; else torch",
        choices=("auto", "torch", "openvino", "onnxruntime"),
    )
    dtype: str = parameter(
        "auto",
        "Compute dtype; auto: bfloat16 on cuda, on GPUs without it float32 for Lotus-2 and float16 for Lotus-D and "
        "Lotus-G; float32 on cpu, by openvino in bfloat16 if the CPU has it",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    tasks: tuple[str, ...] = parameter(("auto",), "Tasks to predict; auto: all tasks of the model", choices=TASKS)
    process_resolution: int = parameter(
        0,
        "Longer side in pixels to which images are resized for the model. A model that sizes images by area uses as "
        "many pixels as a 4:3 image of that longer side. 0: the model's own; in the node, at most what the GPU keeps "
        "up with",
        limits=(0, 4096),
        live=True,
    )
    posterior: str = parameter(
        "mode",
        "How the latent is taken from the VAE's posterior; mode is deterministic, sample draws with model.seed",
        choices=("mode", "sample"),
        live=True,
    )
    seed: int = parameter(
        0, "Random seed of posterior:=sample and of a generative model's noise", limits=(0, 2**31 - 1)
    )
    samples: int = parameter(4, "Samples of a generative model; the result is their median", limits=(1, 64))
    timestep_dtype: str = parameter(
        "bfloat16",
        "Dtype to which timesteps and guidance are rounded; the published results were made with bfloat16",
        choices=("bfloat16", "float32"),
        alias="model.conditioning",
    )
    threads: int = parameter(0, "CPU threads of the model; 0: chosen by torch", limits=(0, 256))
    mirror: bool = parameter(
        False,
        "Test-time flip: also process each image mirrored, for ~/uncertainty in place of the model's own; doubles the "
        "time",
        live=True,
    )
    compile: bool = parameter(
        True, "On cuda, compile the model and record CUDA graphs; on a cpu, let model.engine auto try openvino"
    )
    warm_up: tuple[str, ...] = parameter(
        ("640x480",),
        "Image sizes on which the model runs once while the node is configured, so that the first frames are fast",
        choices=(NONE, "WIDTHxHEIGHT"),
    )

    @property
    def wanted_tasks(self) -> tuple[str, ...] | None:
        """The tasks to load; None for all tasks of the model."""
        return None if "auto" in self.tasks else self.tasks


@dataclass(frozen=True)
class InputConfig:
    """The input topics."""

    image_transport: str = parameter(
        "raw",
        "raw: sensor_msgs/Image on `image`; compressed: CompressedImage on `image/compressed`",
        choices=("raw", "compressed"),
    )
    rectified: str = parameter(
        "auto",
        "Whether images are rectified, so that camera_info's P applies instead of K and D; auto: yes if the topic's "
        "name starts with image_rect, without its namespace",
        choices=("auto", "yes", "no"),
    )
    fov: float = parameter(
        0.0,
        "Horizontal field of view in degrees for a camera without camera_info, or whose camera_info is uncalibrated; "
        "0: such images are rejected",
        limits=(0.0, 170.0),
    )
    compressed_formats: tuple[str, ...] = parameter(
        ("jpeg", "png"), "Formats that are decoded on `image/compressed`", choices=COMPRESSED_FORMATS, live=True
    )
    max_megapixels: float = parameter(
        100.0,
        "Compressed images of more pixels are rejected before decoding, because a few bytes can announce gigabytes",
        limits=(0.001, 1000.0),
        live=True,
    )
    reference_transport: str = parameter(
        "raw",
        "raw: sensor_msgs/Image on `reference/depth`; compressedDepth, or compressed with 16-bit png: CompressedImage "
        "on `reference/depth/<transport>`",
        choices=("raw", "compressed", "compressedDepth"),
    )
    sync_slop: float = parameter(
        0.0,
        "Largest difference between the stamps of an image and its camera_info, seconds; 0: they are equal",
        limits=(0.0, 10.0),
        live=True,
    )


@dataclass(frozen=True)
class SharpConfig:
    """The detail sharpener, which runs on a slower timer."""

    enabled: bool = parameter(True, "Run the detail sharpener while someone subscribes to ~/sharp topics", live=True)
    period: float = parameter(
        1.0, "Seconds between the starts of two sharpened frames", limits=(0.0, 3600.0), live=True
    )
    steps: int = parameter(
        0, "Number of Euler steps of the sharpener; 0: the model's default", limits=(0, 50), live=True
    )
    tasks: tuple[str, ...] = parameter(
        ("auto",),
        "Tasks that the sharpener refines; auto: all tasks of the model. The others stay as the core predictor gives "
        "them",
        choices=TASKS,
        live=True,
    )
    share: float = parameter(
        0.25,
        "Minimum share of the model's time for a sharpened frame in progress, however fast images arrive; at most one "
        "step runs after each frame",
        limits=(0.0, 1.0),
        live=True,
    )

    def refines(self, task: str) -> bool:
        return "auto" in self.tasks or task in self.tasks


@dataclass(frozen=True)
class ScaleConfig:
    """Where the metric scale comes from."""

    source: str = parameter(
        "auto",
        "Source of the metric scale; auto: the first of these that is available; none: publish relative topics only",
        choices=(
            "auto",
            "reference_depth",
            "reference_points",
            "odometry",
            "camera_height",
            "metric_model",
            "none",
        ),
        live=True,
    )
    max_age: float = parameter(
        2.0,
        "How long the last metric measurement stays valid, in seconds from its stamp",
        limits=(0.0, 3600.0),
        live=True,
    )
    reference_slop: float = parameter(
        0.1, "Largest time difference between a frame and its reference, in seconds", limits=(0.0, 10.0), live=True
    )
    points_transform: str = parameter(
        "tf",
        "Transform from the frame of reference/points to the camera's optical frame, as a translation in meters and a "
        "quaternion; tf: look it up in /tf",
        choices=("tf", TRANSFORM),
        live=True,
    )
    fixed_frame: str = parameter(
        "",
        "For the source odometry: a frame that does not move with the robot, odom for example, in which /tf has the "
        "camera's pose; empty: the pose comes from nav_msgs/Odometry on `odometry`",
        live=True,
    )
    camera_pose: str = parameter(
        "tf",
        "For the source odometry: pose of the camera's optical frame in the child frame of the odometry, as a "
        "translation in meters and a quaternion; tf: look it up in /tf",
        choices=("tf", TRANSFORM),
        live=True,
    )
    camera_height: float = parameter(
        0.0, "Height of the camera above the floor, in meters; 0: unknown", limits=(0.0, 100.0), live=True
    )
    camera_pitch: float = parameter(
        0.0,
        "Angle by which the camera looks down, in degrees; used with camera_height",
        limits=(-90.0, 90.0),
        live=True,
    )
    camera_roll: float = parameter(
        0.0,
        "Clockwise rotation of the camera about its optical axis, in degrees; used with camera_height",
        limits=(-180.0, 180.0),
        live=True,
    )
    metric_model: str = parameter(
        "",
        "For the source metric_model: folder, or name in the local Hugging Face cache, of a metric depth model that "
        "transformers' AutoModelForDepthEstimation loads; empty: none",
    )
    metric_download: bool = parameter(False, "Download scale.metric_model from the Hugging Face hub if it is not there")
    metric_period: float = parameter(
        1.0, "Seconds between two runs of scale.metric_model", limits=(0.0, 3600.0), live=True
    )
    relative_shift: float = parameter(
        0.0,
        "Shift s in depth = 1 / (disparity + s) without a metric scale: the farthest point is (1 + s) / s times as "
        "far as the nearest; 0: estimate it from the predicted normals",
        limits=(0.0, 100.0),
        live=True,
    )
    tracking: bool = parameter(True, "Keep the depth of static surfaces steady from frame to frame", live=True)
    local_field: bool = parameter(
        True,
        "Correct depth locally toward the points of a reference, beyond one scale and shift for the image",
        live=True,
    )

    def is_near(self, stamp: float, other: float) -> bool:
        """Whether two stamps, in seconds, are within ``reference_slop``, to the precision of today's in float64."""
        return abs(stamp - other) <= self.reference_slop + STAMP_ROUNDING


@dataclass(frozen=True)
class DepthConfig:
    """Depth images, and everything computed from them."""

    sky: bool = parameter(
        True, "Set the depth of the sky to +Inf; needs predicted normals. false: keep the model's depth", live=True
    )
    guided: str = parameter(
        "auto",
        "Whether the edges of depth follow those of the image when depth is resized to the image's size; auto: as the "
        "model's bundle says, yes for the bundled model",
        choices=("auto", "yes", "no"),
        live=True,
    )


@dataclass(frozen=True)
class CloudConfig:
    """Point clouds."""

    normals: bool = parameter(False, "Add normal_x, normal_y, normal_z to the clouds", live=True)
    stride: int = parameter(1, "Take every n-th pixel of every n-th row", limits=(1, 64), live=True)
    min_depth: float = parameter(
        0.0, "Remove points nearer than this, in meters (NaN in the cloud)", limits=(0.0, 1e6), live=True
    )
    max_depth: float = parameter(
        0.0, "Remove points farther than this, in meters (NaN in the cloud); 0: no limit", limits=(0.0, 1e6), live=True
    )
    edge_threshold: float = parameter(
        0.05,
        "Remove flying pixels between a near and a far surface (NaN in the cloud) if both surfaces are farther away "
        "than this fraction of the pixel's depth; 0: keep them",
        limits=(0.0, 10.0),
        live=True,
    )
    sigma: bool = parameter(
        False,
        "Add the field sigma to the clouds: one standard deviation of a point's depth, in meters; on with "
        "cloud.voxel_sigma",
        live=True,
    )
    max_sigma: float = parameter(
        0.0,
        "Remove points whose standard deviation exceeds this share of their depth (NaN in the cloud); 0: keep them",
        limits=(0.0, 10.0),
        live=True,
    )
    remove_ground: str = parameter(
        "none",
        "Leave the floor out of ~/filtered/points, or of all clouds (NaN in the cloud); needs predicted normals. The "
        "floor is where scale.camera_height says, or is found. A costmap is cleared by clouds with the floor",
        choices=("none", "filtered", "all"),
        live=True,
    )
    ground_height: float = parameter(
        0.1,
        "With cloud.remove_ground, what faces up is floor up to this height in meters plus 5 % of its depth",
        limits=(0.0, 10.0),
        live=True,
    )
    filter_period: float = parameter(1.0, "Period of ~/filtered/points, in seconds", limits=(0.0, 3600.0), live=True)
    voxel_size: float = parameter(
        0.05,
        "Voxel size of ~/filtered/points, in meters: it has one point per voxel; 0: keep all points",
        limits=(0.0, 100.0),
        live=True,
    )
    voxel_sigma: float = parameter(
        0.0,
        "Double cloud.voxel_size, up to 16 times, where it is less than this many standard deviations; 0: all voxels "
        "have the same size",
        limits=(0.0, 10.0),
        live=True,
    )
    outlier_neighbors: int = parameter(
        20,
        "Number of nearest neighbors by which outliers are removed from ~/filtered/points; 0: keep them",
        limits=(0, 1000),
        live=True,
    )
    outlier_deviation: float = parameter(
        2.0,
        "Outliers are points whose mean distance to their neighbors exceeds the average by this many standard "
        "deviations",
        limits=(0.0, 100.0),
        live=True,
    )

    @property
    def has_sigma(self) -> bool:
        """Whether the clouds have the field sigma."""
        return self.sigma or self.voxel_sigma > 0

    @property
    def needs_sigma(self) -> bool:
        """Whether clouds are made with the standard deviation of depth."""
        return self.has_sigma or self.max_sigma > 0


@dataclass(frozen=True)
class NodeConfig:
    """The node's lifecycle and its diagnostics."""

    autostart: bool = parameter(True, "Configure and activate at start; false: wait for a lifecycle manager")
    retry: int = parameter(
        3,
        "With autostart, how often the node configures and activates itself again after a failure; the count restarts "
        "once a frame was processed",
        limits=(0, 1000000),
        live=True,
    )
    retry_backoff: float = parameter(
        1.0, "Seconds before the first retry, doubled for each of the next ten", limits=(0.0, 3600.0), live=True
    )
    exit_on_failure: bool = parameter(
        False,
        "After a failure without retries left, end the process with status 1, for a launch file's respawn",
        live=True,
    )
    warn_period: float = parameter(
        5.0, "Seconds between two warnings for the same reason", limits=(0.0, 3600.0), live=True
    )
    warn_rate: float = parameter(
        1.0, "Diagnostics warn below this many results per second; 0: never", limits=(0.0, 1000.0), live=True
    )
    warn_latency: float = parameter(
        1.0,
        "Diagnostics warn if the 95th percentile of the time from image to result is above this many seconds; 0: never",
        limits=(0.0, 3600.0),
        live=True,
    )
    warn_drops: float = parameter(
        0.9,
        "Diagnostics warn if more than this share of the frames is dropped for newer ones; 1: never",
        limits=(0.0, 1.0),
        live=True,
    )

    def pause_before(self, retry: int) -> float:
        """Seconds before a retry, which are counted from 0."""
        return self.retry_backoff * 2 ** min(retry, 10)
