"""What becomes of judged rows: each is counted once, under one name."""

from __future__ import annotations

import pandas

from workbench.personas.judges import Judgement, count_outcomes
from workbench.personas.judging import counts_by_arm, judge_rows, kept_mask

OUTCOMES = {
    "high": Judgement(80.0, "scored", 90.0),
    "low": Judgement(20.0, "scored", None),
    "soup": Judgement(80.0, "scored", 10.0),
    "refused": Judgement(None, "refused"),
    "failed": Judgement(None, "failed"),
    "unjudged": Judgement(None, "unjudged"),
}


class ByWord:
    """Judges a reply by the one word that it consists of."""

    name = "by-word"

    def score(self, items, trait):
        assert all(item.answer.strip() for item in items), "an empty reply was sent to the judge"
        return [OUTCOMES[item.answer] for item in items]

    def description(self):
        return {"name": self.name}


def rows() -> pandas.DataFrame:
    texts = [*OUTCOMES, "high", " ", "failed"]
    frame = pandas.DataFrame({"arm": ["positive", "negative"] * 9, "response": texts * 2, "question": "why?"})
    return frame.assign(n_tokens=5, n_sinks=[0] * 17 + [5])


def test_every_row_is_counted_once_whatever_became_of_it():
    judged = judge_rows(rows(), None, ByWord())  # type: ignore[arg-type]
    counts = counts_by_arm(judged)
    for arm, cell in counts.items():
        assert sum(cell.values()) - cell["rows"] == cell["rows"] == 9, arm
    assert sum(cell["kept"] for cell in counts.values()) == kept_mask(judged).sum()
    for name in ("refused", "failed", "unjudged", "incoherent", "wrong_side", "empty"):
        assert sum(cell[name] for cell in counts.values()) > 0, name


def test_rows_keep_their_order_index_and_columns():
    frame = rows().set_index(pandas.Index(range(100, 118)))
    judged = judge_rows(frame, None, ByWord())  # type: ignore[arg-type]
    assert judged.index.equals(frame.index) and judged[frame.columns.tolist()].equals(frame)
    assert judged["outcome"].tolist()[:9] == ["scored"] * 3 + [
        "refused",
        "failed",
        "unjudged",
        "scored",
        "empty",
        "failed",
    ]
    assert judged["score"].isna().sum() == (judged["outcome"] != "scored").sum()


def test_the_outcomes_of_judgements_sum_to_their_number():
    counts = count_outcomes(list(OUTCOMES.values()))
    assert counts == {"scored": 3, "refused": 1, "failed": 1, "unjudged": 1}
