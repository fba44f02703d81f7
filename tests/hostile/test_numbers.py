"""Numbers under stress: what every odd input to an extraction gives is defined, an error in three parts or a vector."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch

from tests.personas.toy import LexicalJudge, responses
from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models.capture import capture
from workbench.models.generation import generate
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.models.prompts import ChatTokens, tokenize_chat
from workbench.models.sampling import Sampling
from workbench.personas.extraction import extract
from workbench.personas.judges import JudgeItem, Judgement, make_judge
from workbench.personas.traits import Trait, load_trait

EVIL = load_trait("evil")
HOOK = HookPoint(1)


class Says(LexicalJudge):
    """One verdict on every reply."""

    def __init__(self, verdict: Judgement) -> None:
        self.verdict = verdict

    def score(self, items: list[JudgeItem], trait: Trait | str) -> list[Judgement]:
        return [self.verdict] * len(items)


def spoilt(block: int, factor: float, dtype: torch.dtype = torch.float32) -> Model:
    """A tiny model whose MLP of one block is scaled by `factor`."""
    sound = tiny_model()
    hf: Any = copy.deepcopy(sound.hf)
    with torch.no_grad():
        hf.model.layers[block].mlp.down_proj.weight.mul_(factor)
    return Model(hf.to(dtype), sound.tokenizer, name="spoilt", weights_hash=f"{block} {factor}")


def extracted(tmp_path: Path, rows: pandas.DataFrame | None = None, **options: Any) -> Any:
    trait, model = options.pop("trait", EVIL), options.pop("model", None) or tiny_model()
    given = responses(trait, n_instructions=len(trait.instructions[:3])) if rows is None else rows
    return extract(trait, model, rollouts=given, out=tmp_path, hook=HOOK, n_bootstrap=10, n_random=20,
                   **{"judge": LexicalJudge(), **options})  # fmt: skip


def refused(tmp_path: Path, rows: pandas.DataFrame | None = None, **options: Any) -> str:
    with pytest.raises(WorkbenchError) as error:
        extracted(tmp_path, rows, **options)
    assert error.value.found and error.value.expected and error.value.remedy
    return str(error.value)


def changed(**columns: Any) -> pandas.DataFrame:
    return responses(EVIL).assign(**columns)


# ------------------------------------------------------------------------------------------------- inside the model


@pytest.mark.parametrize(("block", "factor"), [(0, float("nan")), (1, float("nan")), (1, float("inf"))])
def test_nan_and_infinity_in_a_block_are_named_with_the_block(block: int, factor: float, tmp_path: Path) -> None:
    said = refused(tmp_path, model=spoilt(block, factor))
    assert f"blocks.{block}.hook_resid_post" in said and "NaN or infinity" in said


def test_what_overflows_in_float16_is_told_to_use_another_type(tmp_path: Path) -> None:
    assert "--dtype bfloat16" in refused(tmp_path, model=spoilt(1, 1e6, torch.float16))
    assert bool(torch.isfinite(extracted(tmp_path, model=spoilt(1, 1.0, torch.bfloat16)).direction).all())


def _pushed_to_nan(model: Model, row: int) -> Any:
    """A hook that spoils the activations of one row."""

    def spoil(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor[min(row, len(tensor) - 1)] = float("nan")
        return tensor

    return model.hooked({HookPoint(0): spoil})


def test_nan_that_one_row_meets_is_named_with_its_row() -> None:
    model = tiny_model()
    chats = [tokenize_chat(model, [{"role": "user", "content": text}, {"role": "assistant", "content": text}])
             for text in ("a b c", "the town and the river, long and cold")]  # fmt: skip
    model.norm_medians([HOOK])
    with _pushed_to_nan(model, 0), pytest.raises(WorkbenchError, match=r"row 1 at blocks\.1\.hook_resid_post"):
        list(capture(model, chats, [HOOK]))  # the longest row goes first


def test_nan_while_a_reply_is_sampled_ends_the_sampling() -> None:
    model = tiny_model()
    prompts = [tokenize_chat(model, [{"role": "user", "content": "Hello"}], add_generation_prompt=True)] * 2
    model.norm_medians([HOOK])
    for hooks in ([], [HOOK]):
        with _pushed_to_nan(model, 1), pytest.raises(WorkbenchError, match="NaN or infinity"):
            list(generate(model, prompts, Sampling(max_new_tokens=3), row_seeds=[1, 2], hooks=hooks))


@pytest.mark.parametrize("n_tokens", [32_768])
def test_a_prompt_of_32k_tokens_is_read_in_bounded_memory(n_tokens: int) -> None:
    model = tiny_model()
    ids = tuple(torch.randint(10, 300, (n_tokens,), generator=torch.Generator().manual_seed(0)).tolist())
    row = ChatTokens(ids, {"response": ((n_tokens - 16, n_tokens),)})
    ((_, (found,)),) = capture(model, [row], [HookPoint(0)])
    assert found.n_tokens == 16 and bool(torch.isfinite(found.means).all())


# ------------------------------------------------------------------------------------------------- replies and scores


def test_empty_replies_are_refused_with_their_row(tmp_path: Path) -> None:
    assert "Row 0 has no response" in refused(tmp_path, changed(response=""))


def test_replies_of_one_token_make_a_vector(tmp_path: Path) -> None:
    letters = {"positive": "a", "neutral": "b", "negative": "c"}
    vector = extracted(tmp_path, changed(response=[letters[arm] for arm in responses(EVIL)["arm"]]), judge=make_judge("none"))
    assert bool(torch.isfinite(vector.direction).all()) and float(vector.direction.norm()) > 0


@pytest.mark.parametrize("verdict", [(None, "refused", 0.0), (None, "failed", None), (50.0, "scored", 9.0)])
def test_when_every_row_is_filtered_away_the_counts_say_why(verdict: Any, tmp_path: Path) -> None:
    said = refused(tmp_path, judge=Says(Judgement(*verdict)))
    assert "0 extraction questions have kept rows in both arms" in said and "0 of 30 kept" in said


def test_constant_scores_keep_one_arm_and_are_refused(tmp_path: Path) -> None:
    assert "30 wrong side" in refused(tmp_path, judge=Says(Judgement(70.0, "scored", 90.0)))


def test_one_question_is_refused(tmp_path: Path) -> None:
    rows: Any = responses(EVIL)
    assert "at least 8" in refused(tmp_path, rows[rows["question_id"] == rows["question_id"].iloc[0]])


def test_identical_arms_are_refused_and_not_called_a_vector(tmp_path: Path) -> None:
    said = refused(tmp_path, changed(response="The same words for everybody.", system=""), judge=make_judge("none"))
    assert "he two arms are the same at blocks.1.hook_resid_post" in said


def test_one_instruction_pair_makes_a_vector(tmp_path: Path) -> None:
    alone = replace(EVIL, instructions=EVIL.instructions[:1])
    assert float(extracted(tmp_path, trait=alone).direction.norm()) > 0


@pytest.mark.parametrize(
    "tail",
    ["😈🏴‍☠️👩‍👩‍👧", "\u202eعبارة من اليمين\u202c שלום", "\u0000\u0007\u001b[31m", "\ud800 lone", "e\u0301" * 40, "x" * 400],
    ids=["emoji", "right to left", "controls", "lone surrogate", "combining", "long"],
)
def test_odd_texts_are_read_as_they_are(tail: str, tmp_path: Path) -> None:
    rows = responses(EVIL)
    texts = pandas.Series([text + tail for text in rows["response"]], dtype=object, index=rows.index)
    vector = extracted(tmp_path, rows.assign(response=texts))
    assert bool(torch.isfinite(vector.direction).all()) and float(vector.direction.norm()) > 0


@pytest.mark.parametrize("family", ["gemma2", "qwen3", "gpt_oss"])
def test_templates_without_a_system_role_or_a_start_token_make_a_vector(family: str, tmp_path: Path) -> None:
    vector = extracted(tmp_path, model=tiny_model(family))
    assert bool(torch.isfinite(vector.direction).all()) and float(vector.direction.norm()) > 0


def test_a_vocabulary_without_start_and_padding_tokens_makes_a_vector(tmp_path: Path) -> None:
    bare = tiny_model("qwen2")
    tokenizer = copy.deepcopy(bare.tokenizer)
    tokenizer.bos_token = tokenizer.pad_token = None
    vector = extracted(tmp_path, model=Model(bare.hf, tokenizer, name="bare", weights_hash="bare"))
    assert float(vector.direction.norm()) > 0
