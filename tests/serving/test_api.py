from __future__ import annotations

import json
import time

import pytest

from tests.serving.world import TRAIT, WORDS, serving, small
from workbench.serving.searching import search_features

CHAT = [{"role": "user", "content": "What should I do with the money?"}]
STEER = {"messages": CHAT, "trait": TRAIT, "dose": 1.0, "max_new_tokens": 20, "seed": 1}


def lines(answer) -> list[dict]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def idle(explorer, seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while explorer.turns.n_inside and time.monotonic() < until:
        time.sleep(0.02)
    return explorer.turns.n_inside == 0


def test_the_trait_is_told_with_its_labels(client):
    found = client.get(f"/api/traits/{TRAIT}").json()
    rows = {row["feature"]: row for row in found["features"]}
    assert rows[0]["label"] == WORDS[0] and rows[0]["share"] == 0.5 and rows[0]["status"] == "proposed"
    assert found["features"][0]["feature"] == 0 and rows[7]["label"] is None
    assert client.get("/api/traits/kind").status_code == 400


def test_a_feature_without_an_index_shows_the_contexts_of_its_label(client):
    found = client.get("/api/features/1").json()
    assert found["label"]["label"] == WORDS[1] and found["stats"] is None and "--index" in found["contexts_from"]
    first = found["contexts"]["strongest"][0]
    assert first["tokens"][first["peak"]] == [" word1", 3.0]
    assert client.get("/api/features/9").json()["contexts"] == {} and client.get("/api/features/16").status_code == 400


def test_a_direction_says_its_neighbours_and_tokens(client):
    found = client.get("/api/features/1/direction").json()
    assert found["promoted"] and found["suppressed"] and found["usual"]["promoted"] > 0


def test_features_are_searched_by_words(client):
    found = client.get("/api/features", params={"words": "Cheese"}).json()["found"]
    assert [(row["feature"], row["where"], row["label"]) for row in found] == [(3, "label", WORDS[3])]


def test_a_text_is_what_the_function_reads(client, served):
    from workbench.serving.reading import read_text

    text, explorer = "The rivers are long and cold.", served.explorer
    answer = client.post("/api/text", json={"text": text}).json()
    reading = read_text(explorer.model, explorer.sae, explorer.personas, text)
    assert [token["text"] for token in answer["tokens"]] == list(reading.tokens)
    assert answer["tokens"][3]["features"] == [[f, round(v, 3)] for f, v in reading.features[3]]
    assert answer["projections"][0]["mean_cosine"] == reading.projections[TRAIT].mean_cosine
    assert answer["neutral"][TRAIT]["n_replies"] == 12 and idle(explorer)


def test_two_replies_come_line_by_line_and_are_measured(client, served):
    told = lines(client.post("/api/steer", json=STEER))
    assert [told[0]["event"], told[-2]["event"], told[-1]["event"]] == ["start", "measured", "end"] and told[-1][
        "why"
    ] == "done"
    tokens = [line for line in told if line["event"] == "token"]
    assert len(tokens) > 3 and told[0]["delta_norm"] == pytest.approx(told[0]["typical_norm"])
    plain, steered = told[-2]["replies"]
    assert plain["quality"]["kl"] == 0 and steered["quality"]["kl"] > 0
    for reply, last in zip((plain, steered), tokens[-1]["replies"], strict=True):
        assert (
            reply["quality"]["n_tokens"] == last["n_tokens"] == len(reply["tokens"]) == len(reply["projections"][0]["cosine"])
        )
    assert idle(served.explorer)


@pytest.mark.parametrize("what", [{"trait": TRAIT}, {"trait": None, "feature": 2}])
def test_at_dose_zero_the_two_replies_are_one(client, what):
    told = lines(client.post("/api/steer", json={**STEER, **what, "dose": 0}))
    for line in told:
        if line["event"] == "token":
            assert line["replies"][0] == line["replies"][1]
    first, second = told[-2]["replies"]
    assert first == {**second, "quality": first["quality"]} and second["quality"]["kl"] == 0


def test_closing_the_connection_stops_the_model_and_frees_it(served, world, monkeypatch):
    from tests.tiny import n_hooks

    monkeypatch.setattr(type(served.explorer.limits), "max_new_tokens", 400, raising=False)
    slow = type(world.model).forward
    monkeypatch.setattr(type(world.model), "forward", lambda *args, **kinds: (time.sleep(0.05), slow(*args, **kinds))[1])
    before = n_hooks(world.model)
    with served.client() as client, client.stream("POST", "/api/steer", json={**STEER, "max_new_tokens": 40}) as answer:
        stream = answer.iter_lines()
        assert [json.loads(next(stream))["event"] for _ in range(3)] == ["start", "token", "token"]
        assert served.explorer.turns.n_inside == 1
    started = time.monotonic()
    assert idle(served.explorer) and time.monotonic() - started < 1.5  # forty tokens would take two seconds
    assert n_hooks(world.model) == before


def test_a_reply_that_takes_too_long_ends_and_says_so(world):
    with serving(world.explorer(limits=small(max_seconds=0.0))) as running, running.client() as client:
        told = lines(client.post("/api/steer", json=STEER))
    assert told[-1]["why"].startswith("stopped after") and sum(line["event"] == "token" for line in told) == 1


def test_who_comes_while_the_model_is_at_work_waits_or_is_told(world):
    with serving(world.explorer(limits=small(waiting=1, patience=0.2))) as running, running.client() as client:
        end = running.explorer.turns.take()
        late = client.post("/api/text", json={"text": "some words here"})
        assert late.status_code == 503 and late.headers["retry-after"]
        running.explorer.turns.waiting = 0
        full = client.post("/api/steer", json=STEER)
        assert full.status_code == 429 and "at work" in full.json()["found"]
        assert client.get("/api/status").json()["at_work"] == 1
        end()
        assert client.post("/api/text", json={"text": "some words here"}).status_code == 200


def test_before_the_model_is_there_it_says_so(world):
    from workbench.serving.explorer import Explorer
    from workbench.serving.runs import find_runs

    with serving(Explorer(find_runs([world.run]), lambda: (world.model, world.sae))) as running, running.client() as client:
        assert client.get("/api/status").json()["model"]["state"] == "waiting"
        assert "Reading the run" in client.get("/").text
        for answer in (client.post("/api/text", json={"text": "some words"}), client.get("/api/features/0"),
                       client.post("/api/steer", json=STEER)):  # fmt: skip
            assert answer.status_code == 503 and "still being loaded" in answer.json()["found"]


def test_a_verdict_is_written_and_a_conflict_is_409(client, served):
    from workbench.labeling.files.store import FeatureLabel, save_label

    book = served.explorer.book
    feature = client.get("/api/features/2").json()
    verdict = {
        "verdict": "edit",
        "annotator": "A. Reader",
        "version": feature["version"],
        "label": "instruments that are played",
    }
    answer = client.post("/api/labels/2", json=verdict)
    assert answer.status_code == 200 and answer.json()["label"]["label"] == "instruments that are played"
    assert client.get(f"/api/traits/{TRAIT}").json()["features"]
    save_label(FeatureLabel(2, "strings", author={"kind": "human", "name": "B. Reader"}, status="confirmed"), book.sae_id,
               book.sae_hash, book.folder, annotator=True)  # fmt: skip
    late = client.post("/api/labels/2", json={**verdict, "version": answer.json()["version"], "label": "pianos"})
    assert late.status_code == 409 and "strings" in [label["label"] for label in late.json()["conflict"]["labels"]]
    assert not [label for label in book.record(2).labels if label.label == "pianos"]


def test_with_an_index_every_feature_has_contexts_counts_and_words(world, tmp_path):
    from tests.labeling.planted import planted_documents
    from workbench.labeling.contexts.building import build_index

    build_index(world.sae, world.model, planted_documents(world.model, world.sae, n=60), tmp_path, context=12, n_top=6, per_bin=2,
                batch_tokens=256, shard_tokens=700, n_tokens=100_000)  # fmt: skip
    with (
        serving(world.explorer(index=tmp_path, labels=tmp_path / "mine", limits=small())) as running,
        running.client() as client,
    ):
        found = client.get("/api/features/0").json()
        assert found["stats"]["n_fired"] > 0 and found["stats"]["histogram"] and found["contexts"]["corpus"]
        assert found["contexts_from"] == "the feature index"
        token, share = found["stats"]["top_tokens"][0]
        by_token = {one.feature: one for one in search_features(token.strip(), {}, running.explorer.index)}
        assert by_token[0].where == "token" and token.strip() in by_token[0].text and by_token[0].share >= share > 0
        assert client.get("/api/features", params={"words": token.strip()}).json()["index"]
        verdict = {"verdict": "edit", "annotator": "A. Reader", "version": "", "label": "a feature of my own"}
        saved = client.post("/api/labels/12", json=verdict)
        assert saved.status_code == 200, saved.text
