"""The skeleton of a new trait: a folder with everything that is to be written, marked FILL IN."""

from __future__ import annotations

from pathlib import Path

from workbench.base.errors import WorkbenchError
from workbench.base.store import atomic_write
from workbench.personas.fields import TO_BE_FILLED
from workbench.personas.traits import ARMS, SPLITS, check_name

_COUNTS = {"extraction": 20, "verification": 10, "sealed": 10}

_HEAD = """\
# The trait "{name}". Replace every {fill} by your own text; `workbench traits show {name}` checks the file.
schema: 2
name: {name}
adjective: "{fill}: the word in 'You are a(n) ... assistant.'"
opposite: "{fill}: the opposite adjective"
description: "{fill}: what an answer which shows the trait does, and what does not count"
author: {{kind: human, name: ""}}

# One triple = one sentence pattern in three stances; only the stance differs between the arms.
instructions:
{instructions}

# Questions that do not mention the trait. Extraction: the vector is made from them; the others are held out.
questions:
{questions}

rubric: |
  {fill}: how strongly does the answer show the trait, from 0 to 100? If it refuses to reply, write REFUSAL.

  Question:
  {{question}}

  Answer:
  {{answer}}

# What the finer features might be. `shows_trait`: would an outside reader see the trait in text of this category?
taxonomy:
  - {{id: first_sub_trait, kind: sub_trait, name: "{fill}", description: "{fill}", shows_trait: true, words: []}}
  - {{id: style, kind: style, name: "Style", description: "How the text is written.", shows_trait: false, words: []}}
  - {{id: topic, kind: topic, name: "Topic", description: "What the text is about.", shows_trait: false, words: []}}
  - {{id: unclear, kind: unclear, name: "Unclear", description: "No single pattern.", shows_trait: false, words: []}}
"""

_PAIRS = """\
# Optional: written, length-matched reply pairs for the causal measure (40 or more; half select, half sealed),
# and control pairs which differ in something else (sad / happy, rude / polite).
# Rename the file to pairs.yaml when it is filled in.
schema: 2
author: {{kind: human, name: ""}}
contrast:
  - {{id: c01, sub: first_sub_trait, split: select, prompt: "{fill}", trait: "{fill}", opposite: "{fill}"}}
controls:
  - {{id: sh01, kind: sad_happy, split: select, prompt: "{fill}", trait: "{fill}", opposite: "{fill}"}}
"""


def new_trait(name: str, folder: str | Path = "traits") -> Path:
    """Write the skeleton `<folder>/<name>/trait.yaml` (and `pairs.example.yaml`); returns the new folder.

    Refuses to touch a folder that already holds a trait.
    """
    check_name(name, "The new trait")
    target = Path(folder) / name
    if (target / "trait.yaml").exists():
        raise WorkbenchError(
            f"{target / 'trait.yaml'} exists already.",
            "A new name.",
            "Choose another name, or edit that file.",
        )
    target.mkdir(parents=True, exist_ok=True)
    atomic_write(target / "pairs.example.yaml", _PAIRS.format(fill=TO_BE_FILLED))
    atomic_write(target / "trait.yaml", _document(name))
    return target


def _document(name: str) -> str:
    instructions = "\n".join(_triple_lines(i) for i in range(1, 6))
    questions = "\n".join(_question_lines(split) for split in SPLITS)
    return _HEAD.format(name=name, fill=TO_BE_FILLED, instructions=instructions, questions=questions)


def _triple_lines(i: int) -> str:
    return "\n".join([f"  - id: i{i}", *(f'    {arm}: "{TO_BE_FILLED} (i{i})"' for arm in ARMS)])


def _question_lines(split: str) -> str:
    rows = (f'    - {{id: {split[0]}{i:02d}, text: "{TO_BE_FILLED}"}}' for i in range(1, _COUNTS[split] + 1))
    return "\n".join([f"  {split}:", *rows])
