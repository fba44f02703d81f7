"""What values show in a notebook."""

from __future__ import annotations

import torch

from tests.reports.example import (
    D_MODEL,
    HOOK,
    SAE_ID,
    bare_parts,
    example_labels,
    example_parts,
    example_vector,
)
from tests.reports.hostile import HOSTILE, hostile_report
from workbench.base.display import html_for
from workbench.reports import displays
from workbench.reports.content import Report
from workbench.saes.interface import SparseAutoencoder


def example_sae() -> SparseAutoencoder:
    encoder = torch.zeros(D_MODEL, 32)
    card = {"variance_explained": 0.86, "l0": 47.0, "ce_recovered": 0.7, "dead_share": 0.01}
    return SparseAutoencoder(
        SAE_ID,
        HOOK,
        "example-model",
        "standard",
        encoder,
        torch.zeros(32),
        encoder.T.clone(),
        torch.zeros(D_MODEL),
        "0" * 64,
        card=card,
    )


def test_every_value_type_has_a_display(report: Report):
    assert displays.N_ROWS < 50
    for value in (example_vector(), example_parts(), bare_parts(), example_labels(), example_sae(), report):
        shown = html_for(value)
        assert shown is not None and "<strong>" in shown and len(shown) < 60_000
        assert value._repr_html_() == shown


def test_the_display_of_a_report_is_its_answer_and_its_picture(report: Report):
    shown = report._repr_html_()
    assert shown is not None and "<svg" in shown and "Of the squared length of the evil vector" in shown


def test_the_display_of_an_sae_states_its_thresholds():
    shown = html_for(example_sae()) or ""
    assert "poor" in shown and "good ≥ 93%, fair ≥ 80%" in shown


def test_hostile_words_stay_words():
    for text in HOSTILE.values():
        report = hostile_report(text)
        for value in (report, report.labels, report.parts, report.vector):
            shown = html_for(value) or ""
            assert "<script" not in shown and "<img" not in shown
            shown.encode("utf-8")
