from __future__ import annotations

from benchmarks.feature_index import compared, one_side

SIZE = {"tokens": 1024, "d_sae": 256, "d_model": 64, "blocks": 1, "rounds": 1}


def test_both_sides_are_measured_on_the_same_tokens(tmp_path):
    found = compared(SIZE, tmp_path)
    assert found["n_tokens"] == 1024 and 20 < found["l0"] < 80
    assert 0 < found["index_vs_floor"] < 1.5 and found["bookkeeping"]["share_of_floor"] > 0
    assert len(found["floor_seconds_per_token"]) == 2 and found["disk_bytes"] > 1024 * 20 * 8


def test_a_side_says_its_peak_memory():
    assert 0 <= one_side("floor", 1024, 256, 64, 1) < 1 << 28
    assert one_side("floor", 1 << 13, 1 << 14, 256, 1) > 1 << 24
