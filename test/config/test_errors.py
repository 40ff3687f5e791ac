"""One line for an error of a library, whatever its text."""

import pytest

from lotus2_ros.config.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("no kernel image\nCompile with TORCH_USE_CUDA_DSA"), "no kernel image"),
        (ValueError("\n  expected 3 channels  \n"), "expected 3 channels"),
        (EOFError(), "EOFError"),
        (MemoryError("  \n"), "MemoryError"),
    ],
)
def test_the_first_line_of_an_error_or_its_class(error: Exception, line: str):
    assert first_line(error) == line
