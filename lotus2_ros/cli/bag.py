"""``lotus2 bag IN... OUT``: run the model over recordings and write the results to new rosbag2s."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lotus2_ros.bags import Recording, ResumableBag
from lotus2_ros.cli.recording import ENGINE, add_recording_arguments, config_of, recording_of, workers_of
from lotus2_ros.config import Config
from lotus2_ros.config.errors import RunError
from lotus2_ros.config.output import check_output, mark, result_folder
from lotus2_ros.ros.offline import NoGeometryError, Task, process_recording, warn_above_bar

# The options that the frames of the output depend on.
PLANNED = (
    "reference_topic", "camera_info_topic", "odometry_topic", "fov", "model", "sharpen_every", "parameter",
    "keep_topics", ENGINE,
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", nargs="+", type=Path, help="bags, folders of images, videos or images")
    parser.add_argument(
        "output",
        type=Path,
        help="new rosbag2: a folder, or one file if the name ends in .mcap; of several inputs a folder of rosbag2s",
    )
    parser.add_argument(
        "--topic", action="append", help="image topic of the bag, if it has several; give it once for each camera"
    )
    add_recording_arguments(parser)
    parser.add_argument(
        "--sharpen-every", type=_count, default=0, metavar="N", help="sharpen every Nth frame; 0: none (default: 0)"
    )
    parser.add_argument(
        "--keep-topics", metavar="all|TOPIC,...", help="copy all other topics of the input into the output, or these"
    )
    parser.add_argument(
        "--score",
        action="store_true",
        help="write no bags, but a report: errors at measurements that were held out, coverage, latency, drops",
    )
    help = "share of the measurements that --score holds out (default: %(default)s)"
    parser.add_argument("--held-out", type=float, default=0.3, metavar="SHARE", help=help)
    parser.add_argument("--overwrite", action="store_true", help="replace a bag that this command wrote earlier")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run of the same command")


def run(args: argparse.Namespace) -> int:
    """Raises RunError when not one frame of an input gave geometry; the other inputs are processed."""
    config = config_of(args)
    jobs = list(jobs_of(args, config))
    if args.score:
        return score(args, config, jobs)
    todo = [job for job in jobs if not (len(jobs) > 1 and args.resume and job.output.exists())]  # the others are done
    bags = [job.bag(args) for job in todo]  # all are checked before the first begins
    failures = []
    with workers_of(args, config, frames_of(todo)) as workers:
        for number, (job, bag) in enumerate(zip(todo, bags, strict=True), start=1):
            which = f" {number} of {len(todo)}" if len(todo) > 1 else ""
            print(f"input{which}: {job.recording.name}\ncamera: {job.recording.camera}", flush=True)
            task = Task(job.recording, job.source, args.sharpen_every, keep_topics(args.keep_topics))
            try:
                with bag:
                    outcome = process_recording(workers, task, bag, config)
            except NoGeometryError as error:
                failures.append(str(error))
                continue
            for line in outcome.failed_lines():
                print(line)
            print(f"{job.output}: {bag.count} messages", flush=True)
    if failures:
        raise RunError("; ".join(failures))
    return 0


def score(args: argparse.Namespace, config: Config, jobs: list[Job]) -> int:
    """A report in the output folder in place of bags. Raises RunError if a camera cannot be scored; others are."""
    from lotus2_ros.score.report import write_report
    from lotus2_ros.score.score import score_recording

    if not 0 < args.held_out < 1:
        raise ValueError(f"expected --held-out between 0 and 1, got {args.held_out:g}")
    folder = check_output(args.output, "bag --score", args.input)
    mark(folder, "bag --score")
    with workers_of(args, config, frames_of(jobs)) as workers:
        cameras, failures = [], []
        for job in jobs:
            try:
                cameras.append(score_recording(workers, job.recording, config, args.held_out, warn_above_bar))
            except RunError as error:
                failures.append(str(error))
    if cameras:
        print(write_report(folder, cameras, args.held_out).read_text())
        print(f"{folder}: report.md and its pictures")
    if failures:
        raise RunError("; ".join(failures))
    return 0


@dataclass(frozen=True)
class Job:
    """One camera of one input."""

    source: Path
    topic: str | None
    recording: Recording
    output: Path

    def bag(self, args: argparse.Namespace) -> ResumableBag:
        plan = {"input": str(self.source.resolve()), "topic": self.topic}
        plan |= {name: getattr(args, name) for name in PLANNED}
        return ResumableBag(self.output, "bag", plan, args.input, resume=args.resume, overwrite=args.overwrite)


def jobs_of(args: argparse.Namespace, config: Config) -> Iterator[Job]:
    """Every camera of every input with its output. Raises ValueError if two outputs had the same name."""
    topics = args.topic or [None]
    is_one = len(args.input) == len(topics) == 1
    taken: dict[Path, Path] = {}
    for source in args.input:
        for topic in topics:
            output = args.output
            if not is_one:
                output = result_folder(output, source, "" if len(topics) == 1 else topic.replace("/", "_"))
                if output in taken:
                    raise ValueError(f"{source} and {taken[output]} have the same name, both would be {output}")
                taken[output] = source
            yield Job(source, topic, recording_of(args, source, topic, config), output)


def frames_of(jobs: list[Job]) -> int | None:
    """Of all jobs; None if no recording says how many it has."""
    return sum(job.recording.count or 0 for job in jobs) or None


def keep_topics(given: str | None) -> list[str] | None:
    topics = None if given is None else [] if given == "all" else given.split(",")
    if not all(topics or ()):
        raise ValueError(f"expected --keep-topics all or TOPIC,..., got {given!r}")
    return topics


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected 0 or a positive number, got {text!r}")
    return int(text)
