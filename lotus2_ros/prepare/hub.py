"""Released files in a folder, or on the Hugging Face hub: first looked up, then only the needed ones fetched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from lotus2_ros.config.errors import first_line
from lotus2_ros.prepare.space import GIGABYTE, check_spaces, unfinished_size

NAME = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w.-][\w./-]*))?")


class HubError(ValueError):
    """Files cannot be fetched. The message says what to do."""


@dataclass(frozen=True)
class Found:
    """Released files that were looked up: in `folder`, which may be a single file, or on the hub.

    name: under which they are recorded as sources; for files of the hub `owner/name@commit`. sizes: bytes by file name.
    missing: bytes that are not in the hub's cache yet.
    """

    name: str
    sizes: Mapping[str, int]
    folder: Path | None = None
    missing: int = 0
    patterns: tuple[str, ...] = ()

    def __str__(self) -> str:
        fetched = f", {self.missing / GIGABYTE:.2f} GB to fetch" if self.missing else ""
        return f"{self.name}: {len(self.sizes)} files, {sum(self.sizes.values()) / GIGABYTE:.2f} GB{fetched}"


@dataclass(frozen=True)
class Origin:
    """A folder, and the name under which its files are recorded as sources."""

    folder: Path
    name: str


def find(place: str, name: str, patterns: Sequence[str], required: Iterable[str] = ()) -> Found:
    """Look up a local folder or file, to be recorded as `name`, or a model `owner/name[@revision]` of the hub.

    Nothing is fetched yet. Files of the names `required` have to be there. With HF_HUB_OFFLINE the hub's cache has to
    have the files. Raises HubError.
    """
    folder = Path(place).expanduser()
    if folder.exists():
        parent = folder if folder.is_dir() else folder.parent
        sizes = _sizes(parent, patterns)
        for file in required:
            if file not in sizes:
                raise HubError(f"{parent / file}: file not found")
        return Found(name, sizes, folder)
    match = NAME.fullmatch(place)
    if match is None:
        raise HubError(
            f"{place}: expected a folder or a name on the hub (owner/name or owner/name@revision), got neither"
        )
    repo, revision = match["repo"], match["revision"]
    try:
        if constants.HF_HUB_OFFLINE:
            cached = Path(
                snapshot_download(repo, revision=revision, allow_patterns=list(patterns), local_files_only=True)
            )
            return find(str(cached), f"{repo}@{cached.name}", patterns, required)
        HfApi().auth_check(repo)
        files = snapshot_download(repo, revision=revision, allow_patterns=list(patterns), dry_run=True)
    except HubError:
        raise
    except Exception as error:  # of many classes, see _explained
        raise _explained(place, repo, error) from error
    sizes = {file.filename: file.file_size or 0 for file in files}
    missing = [file for file in required if file not in sizes]
    if missing or not files:
        raise HubError(f"{place}: expected {' and '.join(missing) or ' or '.join(patterns)}, found none")
    # Use the commit from here on, because a branch may move.
    return Found(
        f"{repo}@{files[0].commit_hash}",
        sizes,
        missing=sum(file.file_size or 0 for file in files if file.will_download),
        patterns=tuple(patterns),
    )


def check_room(found: Iterable[Found], output: Path, bundle: int) -> None:
    """Raise DiskSpaceError unless there is room for all that is missing and for a bundle of about `bundle` bytes."""
    missing = sum(each.missing for each in found)
    check_spaces({Path(constants.HF_HUB_CACHE): missing, output.parent: max(0, bundle - unfinished_size(output))})


def fetch(found: Found) -> Origin:
    """The files in a folder; those of the hub in its cache, so an interrupted fetch continues. Raises HubError."""
    if found.folder is not None:
        return Origin(found.folder, found.name)
    repo, _, commit = found.name.partition("@")
    try:
        folder = snapshot_download(repo, revision=commit, allow_patterns=list(found.patterns))
    except Exception as error:  # of many classes, see _explained
        raise _explained(repo, repo, error) from error
    return Origin(Path(folder), found.name)


def _sizes(folder: Path, patterns: Sequence[str]) -> dict[str, int]:
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}


def _explained(place: str, repo: str, error: Exception) -> HubError:
    """The error as one line that says what to do. The library's exceptions differ between versions."""
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{repo}"
        return HubError(f"{place}: accept its license at {page}, then log in with `hf auth login`")
    if isinstance(error, RevisionNotFoundError):
        return HubError(f"{place}: the hub has no such revision of it")
    if isinstance(error, RepositoryNotFoundError):
        return HubError(f"{place}: no such folder, and no such model on the hub, or not one that you may see")
    if constants.HF_HUB_OFFLINE:
        state = "incomplete" if "incomplete" in str(error) else "not"
        where = f"in the hub's cache {constants.HF_HUB_CACHE}"
        return HubError(f"{place}: no such folder, and {state} {where}; unset HF_HUB_OFFLINE to fetch it")
    reason: BaseException = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    advice = "if its files are in the hub's cache, set HF_HUB_OFFLINE=1"
    return HubError(f"{place}: no such folder, and it cannot be fetched from the hub ({first_line(reason)}); {advice}")
