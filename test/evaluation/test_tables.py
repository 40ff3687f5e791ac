import pytest

from lotus2_ros.evaluation.tables import Table, average_ranks, markdown, published_table, ranked_table


@pytest.mark.parametrize(("task", "methods"), [("depth", 20), ("normals", 14)])
def test_the_published_numbers_give_the_published_ranks(task, methods):
    table = published_table(task)
    assert len(table.methods) == methods and all(len(row) == len(table.columns) for row in table.methods.values())
    ranks = average_ranks(table, gaps_as_zero=True)
    # Printed with one digit.
    wrong = {name: rank for name, rank in ranks.items() if abs(rank - table.printed_ranks[name]) > 0.0501}
    assert wrong == {}


def test_the_papers_ablation_ends_with_what_its_first_table_has_for_lotus_2():
    ablation, depth = published_table("ablation"), published_table("depth")
    lotus2 = dict(zip(depth.columns, depth.methods["Lotus-2"], strict=True))
    last = dict(zip(ablation.columns, ablation.methods["+ Detail Sharpener"], strict=True))
    assert (
        len(ablation.methods) == 7
        and {column: round(value, 1) for column, value in last.items()}.items() <= lotus2.items()
    )


def test_only_the_two_methods_with_gaps_are_flattered_by_the_papers_rule():
    table = published_table("normals")
    fair, printed = average_ranks(table), average_ranks(table, gaps_as_zero=True)
    assert {name for name in fair if fair[name] != printed[name]} == {"EESNU", "Marigold"}
    assert fair["EESNU"] == pytest.approx(9.667, abs=1e-3) and fair["Marigold"] == pytest.approx(10.833, abs=1e-3)


def test_equal_values_share_the_better_rank_and_directions_hold():
    table = Table(
        [("A", "error"), ("A", "share")], [True, False], {"a": [1.0, 5.0], "b": [1.0, 9.0], "c": [2.0, 7.0]}, {}
    )
    assert average_ranks(table) == {"a": 2.0, "b": 1.0, "c": 2.5}


def test_another_method_is_ranked_among_the_published_ones():
    table = published_table("depth").with_method("best", {("KITTI", "AbsRel"): 1.0, ("KITTI", "δ1"): 99.0})
    assert average_ranks(table)["best"] == 1.0
    assert average_ranks(table)["Lotus-2"] == pytest.approx(3.8)  # 3.6, and one more in two columns of ten
    lines = ranked_table(table).splitlines()
    assert lines[-1].startswith("| best | - | - | 1.0 | 99.0 |") and lines[-2].startswith("| Lotus-2 | 4.1 | 97.6 |")
    assert lines[-2].endswith("| 3.8 | 3.6 |")


def test_a_table_shows_what_is_missing_as_a_dash():
    assert markdown(["", "x"], [["a", None], ["b", float("nan")], ["c", 0.12345]]).splitlines()[2:] == [
        "| a | - |",
        "| b | - |",
        "| c | 0.123 |",
    ]
