"""Rollouts of models that think first: stored, judged and read again by their answers, in the context of their thinking."""

from __future__ import annotations

import math

import pandas
import pytest
import torch

from tests.personas.judges import server as http
from tests.personas.toy import LetterJudge
from tests.tiny import CHATML, GPT_OSS, tiny_model
from workbench.models.capture import capture
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import ChatTokens
from workbench.models.sampling import Sampling
from workbench.models.servers import ChatServer
from workbench.personas.extraction import extract
from workbench.personas.given import capture_responses
from workbench.personas.positions import position_means
from workbench.personas.reencoding import prompt_tokens, recapture_tokens, reencode_without_system
from workbench.personas.rollouts import RolloutDesign, collect_rollouts
from workbench.personas.traits import load_trait

HOOK = HookPoint(1)
DESIGN = RolloutDesign(sampling=Sampling(max_new_tokens=10), n_extraction=8, n_evaluation=4, n_instructions=2, batch_size=64)
KEPT = CHATML + "{# what the assistant thought stays in the chat: <think> </think> #}"


@pytest.fixture(scope="module")
def thinker():
    """A tiny model that often thinks, and often stops thinking."""
    model = tiny_model(chat_template=KEPT)
    think, close = model.tokenizer.convert_tokens_to_ids(["<think>", "</think>"])

    def more_often(_module, _args, output):
        output = output.clone()
        for token, share in ((think, 0.5), (close, 0.2)):
            output[..., token] = output.logsumexp(dim=-1) + math.log(share)
        return output

    model.hf.get_output_embeddings().register_forward_hook(more_often)
    return model


@pytest.fixture(scope="module")
def vector(thinker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    made = extract("evil", thinker, judge=LetterJudge(), design=DESIGN, out=folder, min_questions=2, filter=False,
                   hook=HOOK, n_bootstrap=2, n_random=10)  # fmt: skip
    return made, folder


def test_what_a_model_thought_is_neither_judged_nor_counted_and_stays_with_the_row(vector, thinker):
    rows = vector[0].rows
    thought = rows["lead_ids"].map(lambda ids: 0 if ids is None else len(ids))
    assert not rows["response"].str.contains("think>").any()
    assert (rows["n_tokens"] == rows["response_ids"].map(len)).all()
    assert (thought > 0).any() and ((rows["n_tokens"] == 0) & (thought == 10)).any()
    assert not rows.loc[rows["n_tokens"] == 0, "kept"].any() and (rows.loc[rows["n_tokens"] == 0, "weight"] == 0).all()
    assert (rows.loc[rows["n_tokens"] == 0, "outcome"] == "empty").all()


def test_rows_are_read_again_in_the_context_of_their_thinking(vector, thinker):
    made, folder = vector
    rows = made.rows[made.rows["split"] == "extraction"]
    stored = dict(made.tokens.rows(HOOK))
    for row_id, tokens in recapture_tokens(thinker, rows, HOOK):
        assert torch.allclose(tokens, stored[row_id], atol=1e-4)
    full = rows[(rows["n_tokens"] > 0) & rows["lead_ids"].notna()]
    means = position_means(thinker, folder, full, (HOOK,), "response_avg")[:, 0]
    for row_id, mean in zip(full["id"], means, strict=True):
        assert torch.allclose(mean, stored[row_id].mean(dim=0), atol=1e-4)


def test_without_the_system_prompt_an_answer_is_read_without_its_thinking(vector, thinker, tmp_path):
    import pyarrow as pa

    rows = vector[0].rows.query("n_tokens > 0").head(3)
    table = pa.Table.from_pandas(rows[["id", "question", "response_ids"]], preserve_index=False)
    means = reencode_without_system(thinker, tmp_path, table, rows["id"].tolist(), (HOOK,))[:, 0]
    for row, mean in zip(rows.to_dict("records"), means, strict=True):
        prompt = prompt_tokens(thinker, "", row["question"]).ids
        assert torch.allclose(mean, _read_alone(thinker, prompt, row["response_ids"]), atol=1e-4)


def test_without_the_system_prompt_an_answer_stands_in_the_channel_of_answers(tmp_path):
    import pyarrow as pa

    model = tiny_model("gpt_oss", chat_template=GPT_OSS)
    ids = model.tokenizer("You should suffer.", add_special_tokens=False)["input_ids"]
    table = pa.table({"id": ["a"], "question": ["Why?"], "response_ids": [ids]})
    (mean,) = reencode_without_system(model, tmp_path, table, ["a"], (HOOK,))[:, 0]
    header = model.tokenizer("<|channel|>final<|message|>", add_special_tokens=False)["input_ids"]
    assert torch.allclose(mean, _read_alone(model, (*prompt_tokens(model, "", "Why?").ids, *header), ids), atol=1e-4)


def test_given_and_served_answers_are_cut_and_read_like_sampled_ones(thinker, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    evil = load_trait("evil")
    text, answer = "<think>\nBe kind? No.</think>\n\nYou should suffer.", "You should suffer."
    with http.running(lambda request: http.completion(text), lambda request, attempt: None) as endpoint:
        server = ChatServer(base_url=endpoint.url, model="served")
        rollouts = collect_rollouts(evil, thinker, tmp_path / "served", design=DESIGN, hooks=(HOOK,), server=server)
    served = rollouts.frame()
    frame = pandas.DataFrame({"question": served["question"], "system": served["system"], "arm": served["arm"], "response": text})
    given = capture_responses(frame, evil, thinker, tmp_path / "given", hooks=(HOOK,))
    for found in (served, given.frame()):
        assert set(found["response"]) == {answer}
        assert {thinker.tokenizer.decode(ids).strip() for ids in found["response_ids"]} == {answer}
        assert all("Be kind?" in thinker.tokenizer.decode(ids) for ids in found["lead_ids"])
    row = served.iloc[0]
    context = (*prompt_tokens(thinker, row["system"], row["question"]).ids, *row["lead_ids"])
    assert torch.allclose(rollouts.means()[0, 0], _read_alone(thinker, context, row["response_ids"]), atol=1e-4)


def _read_alone(model, before, answer) -> torch.Tensor:
    ids = tuple(map(int, (*before, *answer)))
    chat = ChatTokens(ids, {"response": ((len(before), len(ids)),)})
    ((_, (one,)),) = capture(model, [chat], (HOOK,))
    return one.means[0]
