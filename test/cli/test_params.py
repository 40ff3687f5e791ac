from pathlib import Path

import pytest
import yaml

from lotus2_ros import cli
from lotus2_ros.cli.params import BEGIN, END, parameter_file, parameter_page, with_topics
from lotus2_ros.config import Config, walk

ROOT = Path(__file__).parents[2]
MARKERS = f"{BEGIN}\nSTALE\n{END}\n"


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="not in the source tree")
def test_what_is_generated_is_not_stale():
    """`lotus2 params` was run after the last change of config/parameters.py and of the publishers' table."""
    assert (ROOT / "config" / "perception.yaml").read_text() == parameter_file()
    assert (ROOT / "docs" / "parameters.md").read_text() == parameter_page()
    topics = (ROOT / "docs" / "topics.md").read_text()
    assert topics == with_topics(topics)


def test_the_parameter_file_holds_every_default():
    groups = yaml.safe_load(parameter_file())["/**/perception"]["ros__parameters"]
    flat = {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}
    assert list(flat) == [name for name, _ in walk()]
    assert Config().updated(flat) == Config()


def test_the_page_has_every_parameter_once_in_the_table_of_its_group():
    tables = parameter_page().split("\n## ")[1:]
    named = {
        table.split("\n")[0]: [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
        for table in tables
    }
    assert [name for names in named.values() for name in names] == [name for name, _ in walk()]
    assert all(name.startswith(f"{group}.") for group, names in named.items() for name in names)
    assert "| `sharp.period` | `1.0` |" in parameter_page()


def test_the_table_of_topics_replaces_only_what_is_between_its_markers():
    page = f"# head\n{MARKERS}tail\n"
    once = with_topics(page)
    assert once.startswith("# head\n") and once.endswith("\ntail\n") and "STALE" not in once
    assert "| `~/points` | sensor_msgs/PointCloud2 |" in once and with_topics(once) == once


def test_markers_are_needed_once_each():
    with pytest.raises(ValueError, match="once each in docs/topics"):
        with_topics(MARKERS + MARKERS)


def test_all_files_are_rewritten(tmp_path):
    for folder in ("config", "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "docs" / "topics.md").write_text(MARKERS)
    assert cli.main(["params", "--root", str(tmp_path)]) == 0
    assert "STALE" not in (tmp_path / "docs" / "topics.md").read_text()
    assert (tmp_path / "docs" / "parameters.md").read_text() == parameter_page()
    assert (tmp_path / "config" / "perception.yaml").read_text() == parameter_file()


def test_another_folder_is_refused_with_one_line(tmp_path, capsys):
    assert cli.main(["params", "--root", str(tmp_path)]) == 2
    file = tmp_path / "docs" / "topics.md"
    assert capsys.readouterr().err.startswith(f"lotus2 params: {file}: expected the source tree")
