"""Texts that try to get out of where they are shown."""

from __future__ import annotations

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "closing_script": "</script><script>alert(2)</script>",
    "comment": "<!--<script>",
    "textarea": "</textarea></style></title><img src=x onerror=alert(3)>",
    "link": "javascript:alert(4)",
    "attribute": '" onmouseover="alert(5)" autofocus onfocus="alert(6)',
    "template": "{{ 7*7 }}{% raw %}",
    "svg": "</text></svg><svg onload=alert(8)>",
    "bidi": "safe\u202e\u2066gnp.exe\u2069",
    "surrogate": "half \ud83d of a sign",
    "control": "bell\x07 and null\x00",
    "long": "x" * 100_000,
    "formula": '=HYPERLINK("http://example.invalid")',
    "separator": "line\u2028and\u2029paragraph",
}


def hostile_report(text: str):
    """The example in which every text of the model and of the label is `text`."""
    from dataclasses import replace

    from tests.reports.example import example_labels, example_parts, example_vector
    from workbench.labeling.files.store import Context
    from workbench.reports.content import report

    labels = example_labels()
    spoiled = {}
    for feature, label in labels.labels.items():
        assert label.evidence is not None
        context = Context((text, " and ", text), (3.0, 0.0, 1.0), 0, text, text, 0)
        evidence = replace(
            label.evidence, top=(context,), quantiles=(context,), promoted=(text,), suppressed=(text,)
        )
        spoiled[feature] = replace(
            label,
            label=text,
            explanation=text,
            notes=text,
            author={"kind": text, "name": text},
            status=text,
            categories={"evil": text},
            evidence=evidence,
        )
    parts = replace(
        example_parts(),
        warnings=(text,),
        provenance={text: text},
        controls={"expected_by_chance": 0.1, text: text},
    )
    vector = replace(example_vector(), model={"name": text}, provenance={"seed": text})
    return report(vector, parts, replace(labels, labels=spoiled))
