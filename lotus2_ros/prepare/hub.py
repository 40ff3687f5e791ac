"""Locating released files: in a folder, or on the Hugging Face hub, from which only the needed files are fetched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from lotus2_ros.prepare.work import check_space

FLUX, LOTUS2 = "black-forest-labs/FLUX.1-dev", "jingheya/Lotus-2"
NAME = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w.-][\w./-]*))?")


class HubError(ValueError):
    """Files cannot be fetched. The message says what to do."""


@dataclass(frozen=True)
class Origin:
    """A folder, and the name under which its files are recorded as sources."""

    folder: Path
    name: str


def locate(place: str, name: str, patterns: Sequence[str]) -> Origin:
    """A local folder, recorded as `name`; or a model `owner/name[@revision]` on the hub, whose files are fetched.

    Fetched files stay in the hub's cache, so an interrupted fetch continues. Raises HubError.
    """
    folder = Path(place).expanduser()
    if folder.is_dir():
        return Origin(folder, name)
    match = NAME.fullmatch(place)
    if match is None:
        raise HubError(
            f"{place}: expected a folder or a name on the hub (owner/name or owner/name@revision), got neither"
        )
    repo, revision = match["repo"], match["revision"]
    try:
        # Use the commit from here on, because a branch may move.
        commit = HfApi().model_info(repo, revision=revision).sha
        files = snapshot_download(repo, revision=commit, allow_patterns=list(patterns), dry_run=True)
    except Exception as error:  # of many classes, see _explained
        raise _explained(place, repo, error) from error
    if not files:
        raise HubError(f"{place}: expected {' or '.join(patterns)}, found none")
    check_space(Path(constants.HF_HUB_CACHE), sum(file.file_size or 0 for file in files if file.will_download))
    try:
        return Origin(Path(snapshot_download(repo, revision=commit, allow_patterns=list(patterns))), f"{repo}@{commit}")
    except Exception as error:  # of many classes, see _explained
        raise _explained(place, repo, error) from error


def _explained(place: str, repo: str, error: Exception) -> HubError:
    """The error as one line that says what to do. The library's exceptions differ between versions."""
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{repo}"
        return HubError(f"{place}: accept its licence at {page}, then log in with `hf auth login`")
    if isinstance(error, RevisionNotFoundError):
        return HubError(f"{place}: the hub has no such revision of it")
    if isinstance(error, RepositoryNotFoundError):
        return HubError(f"{place}: no such folder, and no such model on the hub, or not one that you may see")
    reason: BaseException = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    line = next(iter(str(reason).strip().splitlines()), "no reason given")
    return HubError(f"{place}: no such folder, and it cannot be fetched from the hub ({line})")
