"""Control characters in label files: refused with their line, and taken out of what is imported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.labeling.annotating import HASH, SAE, label_of, shelf
from workbench.base.errors import WorkbenchError
from workbench.base.text import is_control
from workbench.labeling.files.neuronpedia import Explanation, NeuronpediaFeature
from workbench.labeling.files.neuronpedia_labels import records_of
from workbench.labeling.files.store import load_labels, save_label

ESCAPE, TURN = "\x1b[2J", "\u202e"


@pytest.mark.parametrize("bad", [ESCAPE, TURN, "\x9b", "\x7f"])
@pytest.mark.parametrize("place", ["label", "name", "method", "trait"])
def test_they_are_refused_in_labels_authors_and_traits(tmp_path: Path, place: str, bad: str) -> None:
    folder = shelf(tmp_path, (5,))
    save_label(label_of(5, author={"kind": "model", "name": "reader", "method": "prompt"}), SAE, HASH, tmp_path)
    path, whole = folder / "5.yaml", {"label": "insults number 5", "name": "reader", "method": "prompt", "trait": "evil"}[place]
    written = "".join(f"\\u{ord(c):04x}" for c in bad)
    before = path.read_text(encoding="utf-8")
    text = re.sub(rf'"?\b{whole}\b"?', lambda _: f'"{whole}{written}"', before)
    assert text != before
    path.write_text(text, encoding="utf-8")
    with pytest.raises(WorkbenchError, match=r"5\.yaml.*control characters"):
        load_labels(SAE, tmp_path)[5]


def test_they_are_taken_out_of_what_is_imported() -> None:
    said = Explanation(f"evil{ESCAPE} {TURN}dna", method=f"m{TURN}", model=f"x\n{ESCAPE}a model")
    nothing = Explanation("\x1b\x07", model="x")
    feature = NeuronpediaFeature("m", "l", 5, explanations=(said, nothing))
    ((label,),) = [record.labels for record in records_of([feature], SAE, HASH).values()]
    assert (label.label, label.author) == ("evil[2J dna", {"kind": "model", "name": "x [2Ja model", "method": "m"})
    assert not any(map(is_control, label.label + "".join(label.author.values())))
