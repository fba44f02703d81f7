"""The places about known mixtures say what every method got, the ones that lose included."""

from __future__ import annotations

from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import mixtures_places

    return mixtures_places


def test_every_method_and_every_control_has_a_row(places):
    assert [row.split("`")[1] for row in places.mixtures_table().splitlines() if row.startswith("| `")] == list(places.METHODS)
    assert all(text in places.mixtures_controls() for text in (*places.CONTROLS.values(), "equal parts"))
    assert len([row for row in places.mixtures_effects().splitlines() if row.startswith("| ")]) == 1 + 5


def test_the_verdict_gives_each_method_its_aims_and_names_the_nearest(places):
    measured = places.read_json(places.EVIDENCE)["mixtures"]
    said = places.mixtures_verdict()
    for one in measured["scores"]:
        if one["method"] != "shares_as_read":
            assert f"`{one['method']}` has a share error of {one['share_error']:.3f}" in said
    assert said.count("both aims are met") == sum(measured["met"].values())
    nearest = min(measured["scores"], key=lambda one: one["share_error"])["method"]
    assert f"`{nearest}` is nearest" in said


def test_aims_are_judged_one_by_one(places):
    assert places._aims({"share_error": 0.1, "order_right": 0.9}) == "both aims are met"
    assert places._aims({"share_error": 0.05, "order_right": 0.6}) == "the aim for the error is met, that for the order is not"
    assert places._aims({"share_error": 0.2, "order_right": 1.0}) == "only the aim for the order is met"
    assert places._aims({"share_error": 0.2, "order_right": 0.1}) == "neither aim is met"
