"""The configuration that changes while the node runs."""

from __future__ import annotations

from dataclasses import dataclass

from lotus2_ros.config.config import Config


@dataclass
class LiveConfig:
    """Holds the configuration in force, shared by all threads of the node.

    A change replaces ``current`` as a whole. Read it once per frame, so that a frame sees one configuration.
    """

    current: Config
