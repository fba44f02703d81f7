"""What values show: briefly as text, and in a notebook."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from typing import Any

import pytest
import torch

import workbench as wb
from tests.reports.example import (
    D_MODEL,
    HOOK,
    SAE_ID,
    bare_parts,
    context,
    evidence_for,
    example_labels,
    example_parts,
    example_vector,
    label_for,
)
from tests.reports.hostile import HOSTILE, hostile_report
from workbench.base import display
from workbench.base.display import Shown, brief, html_for
from workbench.reports.cautions import cautions
from workbench.reports.content import Report
from workbench.reports.displays import DISPLAYS
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


# ------------------------------------------------------------------------------------------------ every public type

# Reached from the names of `workbench`, and shown well enough by a short repr: settings, ids, single rows, machinery.
PLAIN = {
    "WorkbenchError", "HookPoint", "Sampling", "ChatServer", "Judge", "RunFolder", "SaeEntry", "Asset", "AnnotationWidget",
    "LabRow", "Aim", "Check", "EndpointConfig", "Judgement", "MethodScore", "Question", "SamplingDesign", "TokenSource",
    "Column", "FinetuneOptions", "ScreenOptions",
}  # fmt: skip


def returned(function: Any) -> Iterator[type]:
    """The classes of this package that a function says it returns."""
    written = inspect.signature(function).return_annotation
    for name in re.findall(r"\w+", str(written)):
        if isinstance(found := _class_named(name, function), type) and found.__module__.startswith("workbench."):
            yield found


def _class_named(name: str, function: Any) -> Any:
    module = inspect.getmodule(function)
    if hasattr(module, name):
        return getattr(module, name)
    places = {home.rpartition(".")[2]: home for home in DISPLAYS}  # imported for type checkers only
    if name in places:
        return _load(places[name])
    return getattr(wb, name) if name in wb.__all__ else None


def _load(place: str) -> type:
    from importlib import import_module

    module, _, name = f"workbench.{place}".rpartition(".")
    return getattr(import_module(module), name)


def public_types() -> set[type]:
    """All classes that are reached from the public names: themselves, and what functions and methods return."""
    names = [getattr(wb, name) for name in wb.__all__ if name not in ("__version__", "lab")]
    waiting = [*names, *(getattr(wb.lab, name) for name in wb.lab.__all__)]
    seen: set[type] = set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, type):
            if one in seen:
                continue
            seen.add(one)
            methods = [m for n, m in inspect.getmembers(one, callable) if not n.startswith("_")]
            waiting += [found for method in methods if _is_ours(method) for found in returned(method)]
        elif _is_ours(one):
            waiting += list(returned(one))
    return {cls for cls in seen if cls.__module__.startswith("workbench.")}


def _is_ours(one: Any) -> bool:
    return inspect.isroutine(one) and (getattr(one, "__module__", None) or "").startswith("workbench.")


def test_every_public_type_has_a_display_or_is_plainly_exempt():
    found = public_types()
    places = {cls: {f"{one.__module__}.{one.__qualname__}".removeprefix("workbench.") for one in cls.__mro__} for cls in found}
    without = {cls.__name__ for cls in found if not places[cls] & DISPLAYS.keys()}
    assert without <= PLAIN, f"no display: {sorted(without - PLAIN)}"
    assert len(found) > 25, "the walk finds the public types"
    assert all(issubclass(_load(place), Shown) for place in DISPLAYS)


def test_every_registered_display_can_be_found():
    from importlib import import_module

    for function in DISPLAYS.values():
        module, name = function.split(".")
        assert hasattr(import_module(f"workbench.reports.displays.{module}"), name), function


def test_no_type_with_tensors_prints_them():
    """Every dataclass of the package that holds a tensor, an array or a table has the short repr, or one of its own."""
    import ast
    from pathlib import Path

    heavy = re.compile(r"\b(Tensor|ndarray|Table|DataFrame)\b")
    layers = ("models", "saes", "personas", "decomposition", "lab", "labeling", "reports")
    root = Path(display.__file__).parents[1]
    for path in (path for layer in layers for path in (root / layer).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                continue
            if not any("dataclass" in ast.unparse(one) for one in node.decorator_list):
                continue
            if any(isinstance(one, ast.AnnAssign) and heavy.search(ast.unparse(one.annotation)) for one in node.body):
                decorated = ast.unparse(node.decorator_list[0])
                assert "Shown" in [ast.unparse(base) for base in node.bases] and "repr=False" in decorated, f"{path}: {node.name}"


# ------------------------------------------------------------------------------------------------ what they show


def shown_values(report: Report) -> list[Any]:
    label = label_for(7, "Scorn", "contempt", "You are «beneath» me.")
    return [
        example_vector(), example_parts(), bare_parts(), example_labels(), example_sae(), report, label, label.evidence,
        context("You are «beneath» me."), wb.load_trait("evil"), wb.list_saes(), wb.list_assets(), wb.RolloutDesign(),
        wb.check_fitness(example_sae()),
    ]  # fmt: skip


def test_a_display_is_short_and_so_is_the_text(report: Report):
    for value in shown_values(report):
        html = value._repr_html_()
        assert html == html_for(value) and "<strong>" in html and len(html) < 60_000, type(value)
        assert len(repr(value)) < 1200 and "\n" not in repr(value) and "tensor(" not in repr(value), repr(value)[:300]


def test_what_a_notebook_stores_keeps_its_figure_outside_of_html_and_needs_no_script(report: Report):
    for value in shown_values(report):
        outputs = display.display_for(value).outputs(repr(value))
        kinds = [kind for output in outputs for kind in output]
        assert all("text/plain" in output for output in outputs)
        assert kinds.count("image/svg+xml") == (display.figure_for(value) is not None), type(value)
        for output in outputs:
            html = output.get("text/html", "")
            assert "<svg" not in html and "<script" not in html and "var(--wb" not in output.get("image/svg+xml", "")
            assert len(html) < 30_000


def test_the_display_of_a_report_is_its_answer_and_its_picture(report: Report):
    shown = report._repr_html_()
    assert shown is not None and "<svg" in shown and report.sentence().split()[0] in shown and "What is evil made of?" in shown


def test_weak_claims_are_told_where_a_report_or_its_parts_are_shown(report: Report, three):
    told = html_for(report) or ""
    assert report.warnings_on("table") and all(escape(text) in told for text in report.warnings_on("table"))
    assert "crossed q" in (html_for(report.parts) or "")
    poor = replace(report, vector=replace(report.vector, evidence={"auc_stripped": 0.5, "auc_rank_p": 0.5}))
    weak = replace(poor, warnings=cautions(poor))
    for value in (weak, replace(three, traits=(weak, *three.traits[1:]))):
        assert "A random direction may separate the trait as well" in (html_for(value) or "")


def test_the_display_of_an_sae_states_its_thresholds():
    shown = html_for(example_sae()) or ""
    assert "poor" in shown and "good ≥ 93%, fair ≥ 80%" in shown


def test_columns_of_numbers_are_aligned_without_any_style():
    shown = html_for(example_parts()) or ""
    assert '<td class="num" align="right">' in shown and "<td>" not in shown.split("<tbody>")[1].split("</tr>")[0].split("311")[0]


def test_the_peak_of_a_context_is_bold_where_no_style_is_kept():
    assert "<strong> beneath</strong>" in (html_for(context("You are «beneath» me.")) or "")


def test_hostile_words_stay_words():
    for text in HOSTILE.values():
        report = hostile_report(text)
        label = next(iter(report.labels))
        for value in (report, report.labels, report.parts, report.vector, label, evidence_for(3, text.replace(" ", "") or "x")):
            shown = html_for(value) or ""
            assert "<script" not in shown and "<img" not in shown
            shown.encode("utf-8")


@pytest.mark.parametrize(("value", "text"), [
    (torch.zeros(3, 4), "Tensor[3, 4]"), ([1, 2], "[1, 2]"), (list(range(10_000)), "10,000 items"), ({"a": [1]}, "{'a': …}"),
    ("x" * 500, "'" + "x" * 59 + "…'"), (0.123456, "0.1235"), (None, "None"), ([torch.zeros(2)], "1 item"),
])  # fmt: skip
def test_text_is_brief(value: Any, text: str):
    assert brief(value) == text


def test_the_repr_of_a_large_value_is_one_line(report: Report):
    assert repr(report).startswith("Report(vector=") and len(repr(report)) < 400


def test_a_server_never_shows_its_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORKBENCH_API_KEY", "sesame")
    assert "sesame" not in repr(wb.ChatServer(base_url="http://127.0.0.1:1/v1", model="m"))
