"""The laboratory as a picture: realised FDR beside power, every method in every difficulty."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from workbench.reports.matrices import heat_map
from workbench.reports.svg import Figure, drawing, tag

if TYPE_CHECKING:
    from workbench.lab.result import LabResult

_SIZE = re.compile(r'width="(\d+)" height="(\d+)"')


def lab_figure(result: LabResult) -> Figure:
    """Two matrices, difficulties by methods: the realised false discovery rate at q = .05, and power beside the oracle's.

    Methods without error rates list as many latents as truly change: their rate is the share of that list that is wrong.
    """
    difficulties = list(dict.fromkeys(row.difficulty for row in result.rows))
    methods = list(dict.fromkeys(row.method for row in result.rows))
    rows = {(row.difficulty, row.method): row for row in result.rows}
    left, right = (
        heat_map(values, title=title, row_names=difficulties, column_names=methods)
        for title, values in (
            ("Realised false discovery rate at q = .05", [[rows[d, m].fdr_at_05 for m in methods] for d in difficulties]),
            ("Power beside the oracle's", [[rows[d, m].power_vs_oracle for m in methods] for d in difficulties]),
        )
    )
    about = f"{result.sae} SAE, {len(result.seeds)} worlds"
    return _side_by_side(left, right, title=f"Planted truth: {about}")


def _side_by_side(left: Figure, right: Figure, *, title: str) -> Figure:
    (width, height), (more, _) = (map(int, _size(figure)) for figure in (left, right))
    moved = tag("g", right.inline, transform=f"translate({width} 0)")
    return drawing(width + more, height, [left.inline, moved], title=title, description=f"{left.title}; {right.title}")


def _size(figure: Figure) -> tuple[str, str]:
    found = _SIZE.search(figure.inline)
    assert found is not None
    return found[1], found[2]
