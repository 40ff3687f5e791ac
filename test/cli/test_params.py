from pathlib import Path

import pytest
import yaml

from lotus2_ros import cli
from lotus2_ros.cli.params import parameter_file, with_tables
from lotus2_ros.config import Config, walk

ROOT = Path(__file__).parents[2]
MARKERS = "".join(f"<!-- {name}: begin -->\nSTALE\n<!-- {name}: end -->\n" for name in ("topics", "parameters"))


@pytest.mark.skipif(not (ROOT / "README.md").is_file(), reason="not in the source tree")
def test_what_is_generated_is_not_stale():
    """`lotus2 params` was run after the last change of config.py."""
    assert (ROOT / "config" / "perception.yaml").read_text() == parameter_file()
    readme = (ROOT / "README.md").read_text()
    assert readme == with_tables(readme)


def test_the_parameter_file_holds_every_default():
    groups = yaml.safe_load(parameter_file())["/**/perception"]["ros__parameters"]
    flat = {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}
    assert list(flat) == [name for name, _ in walk()]
    assert Config().updated(flat) == Config()


def test_the_table_replaces_only_what_is_between_its_markers():
    readme = f"# head\n{MARKERS}tail\n"
    once = with_tables(readme)
    assert once.startswith("# head\n") and once.endswith("\ntail\n") and "STALE" not in once
    assert "| `points` | sensor_msgs/PointCloud2 |" in once
    assert "| `sharp.period` | `1.0` |" in once and with_tables(once) == once


def test_both_files_are_rewritten(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "README.md").write_text(MARKERS)
    assert cli.main(["params", "--root", str(tmp_path)]) == 0
    assert "sharp.steps" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "config" / "perception.yaml").read_text() == parameter_file()


def test_another_folder_is_refused_with_one_line(tmp_path, capsys):
    assert cli.main(["params", "--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"lotus2 params: {tmp_path / 'README.md'}: expected the source tree")
