"""Scores are what their formula says, whatever the batches; an interrupted screen ends in the same files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.decomposition.planted_world import make_sae
from tests.steering.screen.data import CRUEL, HOOK, KIND, chat, cruel_vector, planted, written
from tests.tiny import tiny_model as build
from workbench.base.errors import WorkbenchError
from workbench.base.runs import RunFolder
from workbench.models.capture import capture
from workbench.models.prompts import ChatTokens, tokenize_chat
from workbench.models.sampling import Sampling
from workbench.personas.reencoding import prompt_tokens
from workbench.personas.vectors import PersonaVector
from workbench.steering.screen import own as own_module
from workbench.steering.screen import scoring
from workbench.steering.screen.own import OwnReplies
from workbench.steering.screen.scoring import ScreenOptions, score_samples

OPTIONS = ScreenOptions(against="own", chunk=8, n_random=3, sampling=Sampling(max_new_tokens=6), batch_size=4)
CHEAP = replace(OPTIONS, against="prompt")


def tiny_sae(model: Any):
    """Orthogonal features at HOOK of the tiny model."""
    return make_sae(n_features=24, d_model=model.d_model, hook=HOOK, model_name=model.name)


def scores_of(folder: Path, model: Any, records: list[Any], options: ScreenOptions = CHEAP, **more: Any):
    """The scores of records along a planted vector."""
    vectors = more.pop("vectors", [cruel_vector(model)])
    return score_samples(written(folder / "data.jsonl", records), model, vectors, folder=folder / "work", options=options, **more)


def test_a_score_against_the_prompt_is_the_reply_mean_minus_the_last_prompt_token(tmp_path: Path, tiny_model):
    vector, records = cruel_vector(tiny_model), [{"messages": chat("Who?", CRUEL[0])}, {"prompt": "Why?", "response": KIND[1]}]
    found = scores_of(tmp_path, tiny_model, records).samples().score[0]
    unit = vector.direction / vector.direction.norm() / tiny_model.norm_medians([HOOK])[0]
    for value, (question, reply) in zip(found, (("Who?", CRUEL[0]), ("Why?", KIND[1])), strict=True):
        whole = tokenize_chat(tiny_model, chat(question, reply))
        start = whole.spans["response"][0][0]
        before = ChatTokens(whole.ids, {"before": ((start - 1, start),)})
        ((_, (mean,)),) = capture(tiny_model, [whole], [HOOK])
        ((_, (last,)),) = capture(tiny_model, [before], [HOOK], span="before")
        assert value == pytest.approx(float((mean.means[0] - last.means[0]) @ unit), abs=1e-5)


def test_a_score_against_the_own_reply_is_the_difference_of_both_means(tmp_path: Path, tiny_model):
    vector, records = cruel_vector(tiny_model), [{"messages": chat("Who?", CRUEL[0])}, {"messages": chat("Who?", KIND[0])}]
    scores = scores_of(tmp_path, tiny_model, records, OPTIONS)
    own = OwnReplies(tmp_path / "work", tiny_model, (HOOK,), sampling=OPTIONS.sampling, batch_size=4)
    prompt = prompt_tokens(tiny_model, "", "Who?")
    assert prompt in own and own.text(prompt)
    ((mean, _),) = own.of([prompt])
    unit = vector.direction / vector.direction.norm() / tiny_model.norm_medians([HOOK])[0]
    for value, record in zip(scores.samples().score[0], records, strict=True):
        ((_, (reply,)),) = capture(tiny_model, [tokenize_chat(tiny_model, record["messages"])], [HOOK])
        assert value == pytest.approx(float((reply.means[0] - mean[0]) @ unit), abs=1e-5)


def test_an_own_reply_scores_nothing_against_itself(tmp_path: Path, tiny_model):
    own = OwnReplies(tmp_path / "first", tiny_model, (HOOK,), sampling=OPTIONS.sampling, batch_size=4)
    questions = [f"Who is {name}?" for name in "abcdefghijklmnop"]
    prompts = [prompt_tokens(tiny_model, "", question) for question in questions]
    own.of(prompts)
    n_tokens = own.store.table(0).column("n_tokens").to_pylist()
    texts = [own.text(prompt) for prompt in prompts]
    # sampled bytes need not come back as the same tokens: only replies that do are the reply that was measured
    same = [i for i, text in enumerate(texts) if text.strip() and _reads_back(tiny_model, questions[i], text, n_tokens[i])]
    assert same
    records = [{"messages": chat(questions[i], texts[i])} for i in same]
    found = scores_of(tmp_path, tiny_model, records, replace(OPTIONS, n_random=0)).samples().score[0]
    assert found == pytest.approx(np.zeros(len(same)), abs=1e-4)


def _reads_back(model: Any, question: str, text: str, n_tokens: int) -> bool:
    ((start, end),) = tokenize_chat(model, chat(question, text)).spans["response"]
    return end - start == n_tokens and "\ufffd" not in text


@pytest.mark.parametrize("options", [OPTIONS, CHEAP], ids=["own", "prompt"])
def test_the_size_of_batches_and_parts_changes_nothing_but_rounding(tmp_path: Path, tiny_model, options: ScreenOptions):
    records = [*planted(20), {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b c"}] * 2}]
    first = scores_of(tmp_path / "a", tiny_model, records, options).samples()
    again = scores_of(tmp_path / "b", tiny_model, records, replace(options, chunk=5, batch_tokens=64)).samples()
    # float32 sums over at most some hundred terms of size one: 1e-4 is three orders above their rounding
    np.testing.assert_allclose(first.score, again.score, atol=1e-4)
    assert (first.turn == again.turn).all()


def test_replies_of_a_conversation_are_scored_in_turn_and_combined_by_max_or_mean(tmp_path: Path, tiny_model):
    said = [*chat("a", KIND[0]), *chat("b", CRUEL[1]), *chat("c", KIND[2])]
    scores = scores_of(tmp_path, tiny_model, [{"messages": said}, {"messages": said[:2]}])
    rows = scores.rows(["line", "turn", "trait:evil"])
    assert rows["turn"].tolist() == [1, 3, 5, 1]
    assert rows["trait:evil"][0] == pytest.approx(rows["trait:evil"][3], abs=1e-5)  # what follows a reply does not change it
    largest, mean = scores.samples("max"), scores.samples("mean")
    first = rows["trait:evil"][:3]
    assert largest.score[0, 0] == first.max() and largest.turn[0, 0] == 1 + 2 * int(first.argmax())
    assert mean.score[0, 0] == pytest.approx(rows["trait:evil"][:3].mean(), abs=1e-6)
    with pytest.raises(WorkbenchError, match="max or mean"):
        scores.samples("least")  # type: ignore[arg-type]


def test_every_line_says_what_became_of_it(tmp_path: Path, tiny_model):
    records = [
        {"messages": chat("a", "")}, {"messages": [{"role": "user", "content": "a"}]},
        {"messages": [*chat("a", "  "), *chat("b", "c d")]},
        "{", "", {"messages": chat("x " * 500, "late")}, {"messages": chat("a", "long " * 500)},
        {"messages": [{"role": "assistant", "content": "hello"}, *chat("a", "b c")]},
    ]  # fmt: skip
    scores = scores_of(tmp_path, tiny_model, records, replace(CHEAP, max_tokens=200, n_random=0))
    found = scores.samples()
    assert found.status.tolist() == ["unscored", "unscored", "scored", "malformed", "blank", "unscored", "scored", "scored"]
    assert [(line, turn, why) for line, turn, why in found.problems if line not in (4,)] == [
        (1, 1, "an empty reply"), (2, -1, "no reply of the assistant to a user"), (3, 1, "an empty reply"),
        (6, 1, "a reply that begins after 200 tokens"),
    ]  # fmt: skip
    assert found.clipped.tolist() == [number == 7 for number in range(1, 9)]


def test_hostile_text_is_scored_like_any_other(tmp_path: Path, tiny_model):
    from tests.reports.hostile import HOSTILE

    records = [{"prompt": text, "response": text, text[:50]: [{}]} for text in HOSTILE.values()]
    found = scores_of(tmp_path, tiny_model, records, replace(OPTIONS, max_tokens=400, n_random=0)).samples()
    late = list(HOSTILE).index("long")  # its prompt alone is longer than what is read
    assert [status == "scored" for status in found.status] == [index != late for index in range(len(HOSTILE))]


def test_a_template_that_refuses_the_roles_leaves_the_line_unscored(tmp_path: Path, tiny_models):
    model = tiny_models("gemma2")
    vector = PersonaVector.from_direction(torch.ones(32), trait="evil", model=model.description(), hook=HOOK)
    records = [{"messages": chat("a", "b")}, {"messages": [*chat("a", "b"), {"role": "assistant", "content": "c"}]}]
    found = scores_of(tmp_path, model, records, replace(CHEAP, n_random=0), vectors=[vector]).samples()
    assert found.status.tolist() == ["scored", "unscored"]


class Stop(BaseException):
    """What no code catches: a kill."""


def killable(folder: Path, model: Any):
    """The screen that is killed: own replies, an SAE, lines that are none."""
    return scores_of(folder, model, [*planted(20), "{", ""], OPTIONS, sae=tiny_sae(model))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    """The same without an interruption."""
    return killable(tmp_path_factory.mktemp("whole"), build())


@pytest.mark.parametrize(("point", "nth"), [
    ("before a part", 1), ("before a part", 2), ("behind a part", 1), ("before own replies", 1), ("behind own replies", 1),
])  # fmt: skip
def test_a_screen_that_is_killed_goes_on_to_the_same_files(
    tmp_path: Path, tiny_model, whole, monkeypatch: pytest.MonkeyPatch, point: str, nth: int
):
    where, name = (scoring, "write_parquet") if "part" in point else (own_module.PartStore, "write")
    with monkeypatch.context() as patch:
        patch.setattr(where, name, _killed(getattr(where, name), nth, first="before" in point))
        with pytest.raises(Stop):
            killable(tmp_path, tiny_model)
    found = killable(tmp_path, tiny_model)
    parts = [path.relative_to(whole.folder) for path in whole.folder.rglob("*.parquet")]
    assert len(parts) == 6  # three of scores, three of own replies
    for part in parts:
        assert (found.folder / part).read_bytes() == (whole.folder / part).read_bytes()
    np.testing.assert_array_equal(found.samples().score, whole.samples().score)


def _killed(real: Any, nth: int, *, first: bool) -> Any:
    calls = iter(range(1_000))

    def call(*args: Any, **more: Any) -> Any:
        here = next(calls) == nth
        if here and first:
            raise Stop
        made = real(*args, **more)
        if here:
            raise Stop
        return made

    return call


def test_a_finished_screen_reads_nothing_again(tmp_path: Path, tiny_model, monkeypatch: pytest.MonkeyPatch):
    first = scores_of(tmp_path, tiny_model, planted(12))
    monkeypatch.setattr(scoring, "read_replies", lambda *_, **__: pytest.fail("read again"))
    again = scores_of(tmp_path, tiny_model, planted(12))
    np.testing.assert_array_equal(first.samples().score, again.samples().score)


def test_a_folder_of_another_screening_is_refused_and_left_alone(tmp_path: Path, tiny_model):
    scores_of(tmp_path, tiny_model, planted(8))
    before = {path: path.read_bytes() for path in (tmp_path / "work").rglob("*.parquet")}
    with pytest.raises(WorkbenchError, match="holds the scores of other data"):
        scores_of(tmp_path, tiny_model, planted(9))
    assert before == {path: path.read_bytes() for path in (tmp_path / "work").rglob("*.parquet")}
    with RunFolder.open(tmp_path / "a run" / "work") as run:
        run.mark_done("vector", "its key")
    with pytest.raises(WorkbenchError, match="holds the scores of other data"):
        scores_of(tmp_path / "a run", tiny_model, planted(8))


def test_what_does_not_belong_together_is_refused_before_any_work(tmp_path: Path, tiny_model, tiny_models):
    other = build(seed=5)
    with pytest.raises(WorkbenchError, match="weights"):
        scores_of(tmp_path, tiny_model, planted(4), vectors=[cruel_vector(other)])
    with pytest.raises(WorkbenchError, match="one vector per trait"):
        scores_of(tmp_path, tiny_model, planted(4), vectors=[cruel_vector(tiny_model)] * 2)
    with pytest.raises(WorkbenchError, match="same hook point"):
        scores_of(tmp_path, tiny_model, planted(4), sae=replace(tiny_sae(tiny_model), hook=type(HOOK)(2)))
    with pytest.raises(WorkbenchError, match="own"):
        ScreenOptions(against="other")  # type: ignore[arg-type]
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-5])])
def test_a_part_of_the_scores_that_is_lost_or_torn_is_made_again(tmp_path: Path, tiny_model, whole, monkeypatch, number, spoil):
    first = killable(tmp_path, tiny_model)
    spoil(first.folder / "scores" / f"part-{number:06d}.parquet")
    (first.folder / "manifest.json").unlink()  # killed before the end was noted
    written: list[str] = []
    real = scoring.write_parquet
    monkeypatch.setattr(scoring, "write_parquet", lambda path, table: (written.append(path.name), real(path, table)))
    found = killable(tmp_path, tiny_model)
    assert written == [f"part-{number:06d}.parquet"]
    for part in whole.folder.rglob("*.parquet"):
        assert (found.folder / part.relative_to(whole.folder)).read_bytes() == part.read_bytes()
