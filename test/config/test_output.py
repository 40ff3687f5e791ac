"""Where a command may write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lotus2_ros.config.output import OutputError, check_output, claimed, is_claimed, mark, marked_by, result_folder


def test_new_places_and_empty_folders_are_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    assert check_output(tmp_path / "new", "demo") == tmp_path / "new"
    assert check_output(tmp_path / "empty", "demo") == tmp_path / "empty"


def test_only_the_same_command_writes_there_again(tmp_path):
    folder = tmp_path / "out"
    mark(folder, "demo")
    (folder / "result").write_text("kept")
    assert marked_by(folder) == "demo"
    assert check_output(folder, "demo") == folder
    with pytest.raises(OutputError, match="was not written by `lotus2 infer`"):
        check_output(folder, "infer")


@pytest.mark.parametrize("name", ["file", "folder"])
def test_what_somebody_else_wrote_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        check_output(tmp_path / name, "demo")


def test_an_output_that_is_holds_or_lies_inside_an_input_is_refused(tmp_path):
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    (images / "a.png").write_bytes(b"")
    for output, relation in (
        (images, "is the input"),
        (images / "out", "is inside the input"),
        (tmp_path / "data", "contains the input"),
    ):
        with pytest.raises(OutputError, match=relation):
            check_output(output, "demo", [images])
    assert check_output(tmp_path / "data" / "images2", "demo", [images])


def test_a_link_counts_as_what_it_points_to(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "images")
    with pytest.raises(OutputError, match="is the input"):
        check_output(tmp_path / "link", "demo", [tmp_path / "images"])
    with pytest.raises(OutputError, match="is the input"):
        check_output(tmp_path / "images", "demo", [tmp_path / "link"])
    with pytest.raises(OutputError, match="already exists"):
        check_output(tmp_path / "link", "demo")


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"out: .*file is no folder; choose another place"):
        check_output(tmp_path / "file" / "out", "demo")
    monkeypatch.setattr(os, "access", lambda folder, mode: folder != tmp_path)
    with pytest.raises(OutputError, match=r"new/out: .* may not be written to; choose another place"):
        check_output(tmp_path / "new" / "out", "demo")
    (tmp_path / "mounted").mkdir()
    assert check_output(tmp_path / "mounted", "demo") == tmp_path / "mounted"


@pytest.mark.parametrize("name", ["pipe", "/dev/null"])
def test_a_pipe_or_device_is_refused_without_being_read(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")

    def written_by(path):
        raise AssertionError("reading it may never end")

    with pytest.raises(OutputError, match="already exists"):
        check_output(tmp_path / name, "bag", written_by=written_by)


def test_links_in_a_circle_and_names_that_are_too_long_are_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for place in (tmp_path / "a" / "out", tmp_path / ("x" * 300)):
        with pytest.raises(OutputError, match="choose another place for the output"):
            check_output(place, "demo")
    assert check_output(tmp_path / "out", "demo", [tmp_path / "a"])  # whoever reads it says what is wrong


def test_a_hard_link_to_an_input_is_that_input(tmp_path):
    (tmp_path / "in.mcap").write_bytes(b"mine")
    (tmp_path / "out.mcap").hardlink_to(tmp_path / "in.mcap")
    assert result_folder(tmp_path, tmp_path / "in.mcap", "_left") == tmp_path / "in_left"
    with pytest.raises(OutputError, match=r"is the input .*in\.mcap"):
        check_output(tmp_path / "out.mcap", "bag", [tmp_path / "in.mcap"], written_by=lambda path: "bag")


def test_results_of_an_input_stay_below_the_output(tmp_path, monkeypatch):
    (tmp_path / "drive").mkdir()
    monkeypatch.chdir(tmp_path / "drive")
    out = tmp_path / "out"
    for source, name in (("a.png", "a"), (".hidden.png", ".hidden"), (".", "drive"), ("..", tmp_path.name)):
        assert result_folder(out, Path(source)) == out / name
    (tmp_path / "drive" / "link.png").symlink_to(tmp_path / "b.png")
    assert result_folder(out, Path("link.png")) == out / "link"
    for source in ("...png", "..png"):  # of stems ".." and "."
        with pytest.raises(OutputError, match=r"expected an input whose name can be that of a folder; rename it"):
            result_folder(out, tmp_path / source)


def test_a_folder_is_claimed_by_one_run_at_a_time(tmp_path):
    assert not is_claimed(tmp_path)
    with claimed(tmp_path, "bag"):
        assert is_claimed(tmp_path)
        with pytest.raises(OutputError, match="another run is writing there"), claimed(tmp_path, "bag"):
            pass
    assert not is_claimed(tmp_path) and marked_by(tmp_path) == "bag"
