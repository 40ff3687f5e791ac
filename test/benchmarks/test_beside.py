from __future__ import annotations


def test_beside_bench_has_a_row_for_each_way_of_waiting(bench):
    printed = bench("benchmarks.beside", "--busy", "0", "--seconds", "0.05")
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| ")]
    assert rows[0][1].strip() == "0 busy, median ms" and len(rows) == 6
    assert all(float(cell) > 0 for row in rows[1:] for cell in row[1:])
