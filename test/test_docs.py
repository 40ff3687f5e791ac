"""The docs hold: lines are short, links lead somewhere, the README stays a page."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    {ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")} | {*ROOT.glob("docs/**/*.md")}
)
LONGEST = 160  # characters of a line, tables not counted

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="not in the source tree")


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_lines_are_short(page: Path) -> None:
    lines = page.read_text().splitlines()
    long = [number for number, line in enumerate(lines, 1) if len(line) > LONGEST and not line.startswith("|")]
    assert not long, f"lines over {LONGEST} characters outside tables"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "lotus2_ros" / "bundled" / "README.md"], ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_tests_and_benchmarks_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"\btest/[\w/]+\.py|\bconfig/[\w/]+\.(?:yaml|xml|rviz)", text)
    named += [f"benchmarks/{name}.py" for name in re.findall(r"python -m benchmarks\.(\w+)", text)]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    assert [page.name for page in ROOT.glob("docs/*.md") if page.name != "README.md" and page.name not in index] == []


def test_pictures_are_small_and_all_are_used() -> None:
    text = "".join(page.read_text() for page in [*PAGES, ROOT / "lotus2_ros" / "bundled" / "README.md"])
    for picture in ROOT.glob("docs/images/*"):
        assert picture.stat().st_size < 3_000_000, picture
        assert picture.name in text, f"{picture.name} is shown nowhere"


def test_no_page_names_this_machine() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert [name for name in tracked if re.search(r"/work/|/root/", (ROOT / name).read_text())] == []
