"""The explainer of the main job: named before any work, part of what the labels depend on."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.base.errors import WorkbenchError
from workbench.cli.explainer_choice import ExplainerChoice
from workbench.cli.options import JobFlags
from workbench.cli.stages import Job
from workbench.labeling.explainers.offline import OfflineExplainer


def job(folder: Path, **flags: str) -> Job:
    return Job(JobFlags(judge="none", **flags).job("evil"), folder)  # type: ignore[arg-type]


def test_the_labels_depend_on_the_explainer_and_nothing_before_them_does(shelf: Path, tmp_path: Path) -> None:
    flags = {"explainer_model": "m", "explainer_url": "http://h/v1"}
    jobs = [job(tmp_path), job(tmp_path, explainer="openai", **flags), job(tmp_path, explainer="anthropic", **flags),
            job(tmp_path, explainer="openai", **{**flags, "explainer_model": "n"})]  # fmt: skip
    assert len({one.key("labels") for one in jobs}) == 4
    assert len({one.key("decomposition") for one in jobs}) == len({one.key("vector") for one in jobs}) == 1


def test_settings_for_an_endpoint_do_not_disturb_the_offline_explainer(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = job(tmp_path).key("labels")
    monkeypatch.setenv("WORKBENCH_EXPLAINER_MODEL", "m")
    monkeypatch.setenv("WORKBENCH_EXPLAINER_URL", "http://h/v1")
    assert job(tmp_path).key("labels") == key and job(tmp_path).explainer == ExplainerChoice("offline")
    monkeypatch.setenv("WORKBENCH_EXPLAINER", "openai")
    assert job(tmp_path).explainer.identity()["model"] == "m"


@pytest.mark.parametrize(
    ("flags", "found"),
    [({"explainer": "opnai"}, "There is no explainer"), ({"explainer": "openai"}, "No endpoint model is named"),
     ({"explainer": "local"}, "No model is named"), ({"explainer": "local", "explainer_model": "nosuch"}, "There is no model")],
)  # fmt: skip
def test_an_explainer_that_cannot_work_is_refused_before_any_work(
    shelf: Path, tmp_path: Path, flags: dict[str, str], found: str
) -> None:
    with pytest.raises(WorkbenchError, match=found):
        job(tmp_path, **flags).check_names()


def test_the_offline_choice_makes_the_offline_explainer() -> None:
    from collections import Counter

    from workbench.labeling.contexts.reading import Collection

    nothing = Collection({}, {}, {}, (), Counter({"a": 1}), 0)
    made = ExplainerChoice().make(nothing)
    assert isinstance(made, OfflineExplainer) and made.background == Counter({"a": 1})
    assert ExplainerChoice().identity() == {"name": "offline"}
