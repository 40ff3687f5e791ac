"""Parameters as options of a command: default, choices and help are those of ``config.py``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from types import MappingProxyType

from lotus2_ros.config import walk


def add_options(
    parser: argparse.ArgumentParser, options: Mapping[str, str], help: Mapping[str, str] = MappingProxyType({})
) -> None:
    """``options``: option -> parameter; ``help``: other words for some of them than the parameter's own."""
    parameters = dict(walk())
    for option, name in options.items():
        default, meta = parameters[name].default, parameters[name].metadata
        is_list = isinstance(default, tuple)
        shown = ",".join(default) if isinstance(default, tuple) else default
        parser.add_argument(
            option,
            dest=name,
            default=default,
            type=(lambda text: tuple(text.split(","))) if is_list else type(default),
            metavar=(",".join if is_list else "|".join)(meta["choices"]) or option.strip("-").upper(),
            help=help.get(option, meta["help"]) + (f" ({shown})" if shown != "" else ""),
        )
