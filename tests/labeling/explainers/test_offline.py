"""The offline explainer on tokens that no screen should obey."""

from __future__ import annotations

from collections import Counter

import pytest

from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.explainers.offline import OfflineExplainer
from workbench.labeling.files.label_part import label_problem


@pytest.mark.parametrize(("token", "sign"), [("\x1b", "␛"), ("\u200e", "\\u200e"), ("\x7f", "␡")])
def test_a_feature_of_a_control_character_has_a_label_that_can_be_filed(token: str, sign: str) -> None:
    contexts = tuple(Context(("a ", token, " b"), (0.0, 1.0 + i, 0.0), 1, "owt", f"d{i}") for i in range(5))
    said = OfflineExplainer(Counter({"the": 50})).explain(FeatureEvidence(3, 0.01, 5.0, contexts))
    assert sign in said.label and label_problem(said.label) is None
