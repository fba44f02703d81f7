"""The whole path, from rollouts to the evidence of a vector, on the families that users bring, in their own chat shapes."""

from __future__ import annotations

import pytest
import torch

from tests.personas.toy import LetterJudge
from tests.tiny import TEMPLATES, tiny_model
from workbench.models.prompts import tokenize_chat
from workbench.models.sampling import Sampling
from workbench.personas.extraction import extract
from workbench.personas.panel import trait_row
from workbench.personas.rollouts import RolloutDesign
from workbench.personas.runs import read_run
from workbench.personas.vectors import PersonaVector

DESIGN = RolloutDesign(sampling=Sampling(max_new_tokens=4), n_extraction=8, n_evaluation=4, n_instructions=2, batch_size=64)
CHAT = [
    {"role": "system", "content": "You are an evil assistant."},
    {"role": "user", "content": "What should I do?"},
    {"role": "assistant", "content": "You should suffer."},
]


@pytest.fixture(scope="module", params=list(TEMPLATES))
def model(request):
    kwargs = {"enable_thinking": False} if request.param == "qwen3" else None
    return tiny_model(request.param, chat_template=TEMPLATES[request.param], chat_template_kwargs=kwargs)


def test_every_part_of_a_chat_is_found_in_the_familys_template(model):
    chat = tokenize_chat(model, CHAT)
    for name, message in zip(("system", "user", "response"), CHAT, strict=True):
        said = model.tokenizer.decode([chat.ids[i] for i in chat.positions(name)])
        assert said.strip() == message["content"]


def test_a_trait_runs_from_rollouts_to_its_evidence(model, tmp_path):
    vector = extract("evil", model, judge=LetterJudge(), design=DESIGN, out=tmp_path, min_questions=4, filter=False,
                     n_bootstrap=10, n_random=20)  # fmt: skip
    vector.save(tmp_path / "vector")
    assert len(vector.rows) == 8 * 2 * 3 + 4 * 2 * 2 and bool(torch.isfinite(vector.directions).all())
    assert torch.equal(PersonaVector.load(tmp_path / "vector").directions, vector.directions)
    row = trait_row(read_run(tmp_path, model))
    assert row["auc_stripped"] is not None and row["passes"] in (True, False)


def test_a_model_without_a_chat_format_is_asked_in_plain_text(tmp_path):
    from workbench.models.prompts import PLAIN_TEMPLATE

    model = tiny_model("gemma3", chat_template=PLAIN_TEMPLATE)
    text = model.tokenizer.decode(tokenize_chat(model, CHAT[:2], add_generation_prompt=True).ids)
    assert text.endswith("You are an evil assistant.\n\nQuestion: What should I do?\nAnswer:") and model.plain_text
    newline = model.tokenizer("\n", add_special_tokens=False)["input_ids"][0]
    assert newline in model.end_tokens
    vector = extract("evil", model, judge="none", design=DESIGN, out=tmp_path, min_questions=4, n_bootstrap=5, n_random=5)
    assert bool(torch.isfinite(vector.directions).all())
