"""Whatever a message holds, a conversion gives a usable result or raises one MessageError in one line."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.mutated_messages import cloud_case, compressed_case, image_case, info_case, is_usable
from lotus2_ros.ros.messages import MessageError


@pytest.mark.parametrize("make", [image_case, compressed_case, info_case, cloud_case])
@settings(max_examples=500)
@given(seed=st.integers(0, 2**32 - 1))
def test_mutated_messages_are_converted_or_rejected(make, seed):
    case = make(random.Random(seed))
    try:
        assert is_usable(case.convert())
    except MessageError as error:
        assert error.reason.replace("_", "").isalpha() and "\n" not in str(error) and len(str(error)) < 500
