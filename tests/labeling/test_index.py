from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.labeling.planted import FILLER, THEMES, planted_documents, planted_sae
from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.building import build_index
from workbench.labeling.contexts.collection import collect_evidence
from workbench.labeling.contexts.index import FeatureIndex
from workbench.labeling.contexts.sightings import N_BINS, activation_bin
from workbench.labeling.contexts.streams import ROLES, TokenDocument, chat_stream, is_scoring, text_stream
from workbench.labeling.contexts.tallies import Sizes, Tally, position_bin
from workbench.labeling.tokens import special_ids
from workbench.saes.token_rows import SINK_RATIO, activations_at

SETTINGS = {"context": 12, "n_top": 6, "per_bin": 2, "batch_tokens": 256, "shard_tokens": 700, "n_tokens": 100_000}
ARMS = ("positive", "negative", "neutral")


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def sae():
    return planted_sae()


def with_activations(document: TokenDocument, model, sae) -> TokenDocument:
    rows = activations_at(model, sae.hook, torch.tensor([document.ids]), torch.ones(1, len(document.ids), dtype=torch.long))[0]
    return replace(document, activations=rows)


@pytest.fixture(scope="module")
def documents(model, sae):
    """Every kind of source, every role, three arms of a trait, two texts that are there several times: activations given."""
    planted = planted_documents(model, sae, n=90)
    planted += [replace(planted[0], id=f"again-{i}", group=f"again-{i}") for i in range(4)]
    planted += [replace(planted[1], id=f"wiki-{i}", group=f"wiki-{i}", source="wikipedia") for i in range(3)]
    rollouts = planted_documents(model, sae, n=36, seed=1)
    assistant = ROLES.index("assistant")
    rollouts = [
        replace(one, id=f"rollout-{i}", group=f"question-{i // 3}", source=f"rollouts:evil:{ARMS[i % 3]}",
                roles=(assistant,) * len(one.ids))
        for i, one in enumerate(rollouts)
    ]  # fmt: skip
    rng = random.Random(3)
    words = lambda n: " ".join(rng.choices([*FILLER, *THEMES[0], *THEMES[1]], k=n))  # noqa: E731
    dialogues = [("You are kind." if i % 2 else "", words(6), words(9)) for i in range(12)]
    chats = [with_activations(one, model, sae) for one in chat_stream(model, dialogues)]
    return [*planted, *rollouts, *chats]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("index")


@pytest.fixture(scope="module")
def index(documents, model, sae, folder) -> FeatureIndex:
    return build_index(sae, model, documents, folder, **SETTINGS)


@pytest.fixture(scope="module")
def dense(documents, model, sae):
    """Per document: codes [n, d_sae] with everything zero that does not count, and which tokens count."""
    limit = SINK_RATIO * float(model.norm_medians([sae.hook])[0])
    found = []
    for document in documents:
        rows = document.activations.float()
        special = torch.isin(torch.tensor(document.ids), torch.tensor(special_ids(model.tokenizer)))
        counts = (rows.norm(dim=-1) <= limit) & ~special
        found.append((sae.encode(rows) * counts[:, None], counts))
    return found


def test_every_count_is_that_of_a_dense_count(index, documents, dense, sae):
    every = torch.cat([codes for codes, _ in dense])
    counted = torch.cat([counts for _, counts in dense])
    ids = torch.tensor([token for document in documents for token in document.ids])
    kinds = [document.kind for document in documents for _ in document.ids]
    sources = [document.source for document in documents for _ in document.ids]
    roles = [ROLES[r] for document in documents for r in document.roles or (0,) * len(document.ids)]
    positions = position_bin(np.concatenate([np.arange(len(document.ids)) for document in documents])).tolist()
    assert index.n_tokens == int(counted.sum())
    for feature in range(sae.d_sae):
        stats, column = index.stats(feature), every[:, feature]
        fires = column > 0
        n = int(fires.sum())
        assert (stats.n_fired, stats.n_tokens) == (n, int(counted.sum()))
        assert stats.maximum == pytest.approx(float(column.max()))
        if n:
            assert stats.mean == pytest.approx(float(column[fires].double().mean()), rel=1e-6)
        bins = Counter(activation_bin(value) for value in column[fires].tolist())
        assert [count for _, _, count in stats.histogram] == [bins[b] for b in sorted(bins)]
        assert all(low <= 2.0 ** ((b - 40) / 4) < high for (low, high, _), b in zip(stats.histogram, sorted(bins), strict=True))
        for found, parts in ((stats.kinds, kinds), (stats.roles, roles), (stats.sources, sources)):
            assert set(found) == {part for part, ok in zip(parts, counted.tolist(), strict=True) if ok}
            for name, rate in found.items():
                here = torch.tensor([part == name for part in parts])
                assert (rate.n_tokens, rate.n_fired) == (int((here & counted).sum()), int((here & fires).sum()))
                assert rate.mean_of_all * rate.n_tokens == pytest.approx(float(column[here].double().sum()), rel=1e-6)
        by_bin = Counter(b for b, f in zip(positions, fires.tolist(), strict=True) if f)
        assert {(first, rate.n_fired) for first, _, rate in stats.positions if rate.n_fired} == {
            (0 if b == 0 else 2 ** (b - 1), n) for b, n in by_bin.items()
        }
        tokens = Counter(ids[fires].tolist())
        if len(tokens) <= 32:
            assert stats.tokens_missed == 0
            assert {one.token: one.count for one in stats.top_tokens} == tokens
        most = max(tokens.values(), default=0)
        assert most - stats.tokens_missed <= round(stats.single_token_share * n) <= most


def test_partners_are_those_of_a_dense_count(index, dense):
    fires = (torch.cat([codes for codes, _ in dense]) > 0).double()
    together = fires.T @ fires
    norms = together.diagonal().clamp_min(1).sqrt()
    cosines = together / norms[:, None] / norms[None, :]
    cosines[together < 3] = 0
    cosines.fill_diagonal_(0)
    some = 0
    for feature, row in enumerate(cosines):
        stats = index.stats(feature)
        wanted = row.topk(8).values
        assert [one.cosine for one in stats.partners] == pytest.approx(wanted[wanted > 0].tolist())
        for one in stats.partners:
            assert one.together == int(together[feature, one.feature])
            assert one.share == pytest.approx(one.together / int(together[feature, feature]))
        some += len(stats.partners)
    assert some and index.stats(0).partners_share == 1.0


def strongest(documents, dense, feature, kind, scoring, context=12, n_top=6):
    """Brute force: per document its peak; no window of a source twice; at most 5 of one source; the strongest first."""
    rows = []
    for document, (codes, _) in zip(documents, dense, strict=True):
        if document.kind == kind and is_scoring(document.group) == scoring and float(codes[:, feature].max()) > 0:
            peak = int(codes[:, feature].argmax())
            start = max(min(peak - 8, len(document.ids) - context), 0)
            rows.append((float(codes[peak, feature]), document.source, document.ids[start : start + context]))
    seen, used, kept = set(), Counter(), []
    for value, source, text in sorted(rows, key=lambda row: -row[0]):
        if (source, text) not in seen and used[source] < 5 and len(kept) < n_top:
            kept.append(value)
            used[source] += 1
        seen.add((source, text))
    return kept


def test_the_strongest_contexts_are_those_of_a_full_search(index, documents, dense, sae):
    checked = 0
    for feature in range(sae.d_sae):
        for kind in ("corpus", "chat", "rollouts"):
            for half in ("explaining", "scoring"):
                wanted = strongest(documents, dense, feature, kind, half == "scoring")
                found = index.contexts(feature, source=kind, half=half, n=6)
                kept = [context.peak_value for context in found]
                # A text that two sources hold is shown once; brute force keeps it per source.
                assert len(wanted) - 2 <= len(kept) <= len(wanted)
                assert set(kept) <= {float(f"{value:.4g}") for value in wanted}
                assert kept == sorted(kept, reverse=True)
                checked += len(kept)
    assert checked > 100


def test_contexts_say_what_fires_where(index, documents, dense, model):
    by_name = {(d.source, d.id): (d, codes) for d, (codes, _) in zip(documents, dense, strict=True)}
    for kind in ("top", "quantiles"):
        for context in index.contexts(0, kind, n=5):
            document, codes = by_name[context.source, context.document]
            begin = context.position - context.peak
            width = len(context.values)
            assert width == min(12, len(document.ids))
            expected = codes[begin : begin + width, 0].tolist()
            assert list(context.values) == [float(f"{value:.4g}") for value in expected]
            assert context.text == model.tokenizer.decode(document.ids[begin : begin + width])
            assert not is_scoring(document.group)
    assert all(is_scoring(by_name[c.source, c.document][0].group) for c in index.contexts(0, half="scoring"))


def test_no_document_and_no_text_is_shown_twice_and_no_source_fills_all_places(index):
    for feature in range(4):
        for half in ("explaining", "scoring"):
            found = index.contexts(feature, half=half, n=6)
            assert len({(c.source, c.document) for c in found}) == len({c.tokens for c in found}) == len(found)
            assert max(Counter(c.source for c in found).values()) <= 5


def test_quantiles_reach_from_weak_to_strong(index, dense):
    found = index.contexts(1, "quantiles", half="scoring", n=5)
    values = [context.peak_value for context in found]
    assert len(values) == 5 and values == sorted(values)
    every = torch.cat([codes for codes, _ in dense])[:, 1]
    low, high = every[every > 0].quantile(torch.tensor([0.3, 0.7])).tolist()
    assert values[0] < low and values[-1] > high


def test_a_collection_is_what_one_pass_over_the_texts_gives(index, documents, model, sae):
    read = collect_evidence([0, 1], sae, model, documents, context=12, n_neighbours=2)
    made = index.collection([0, 1], n_neighbours=2)
    assert made.neighbours == read.neighbours and made.n_tokens == read.n_tokens
    assert set(made.held_out) == set(read.held_out) and set(made.same_token) == set(read.same_token)
    assert made.background == read.background
    for feature in (0, 1):
        one, other = made.evidence[feature], read.evidence[feature]
        assert (one.density, one.max_activation, one.promoted, one.sources) == (
            other.density, other.max_activation, other.promoted, other.sources)  # fmt: skip
        assert one.top[0].peak_value == other.top[0].peak_value
        assert len(one.quantiles) == 6
        assert all(feature in held.active for held in made.held_out[feature])
        assert made.same_token[feature]
        for held in made.same_token[feature]:
            assert feature not in held.active and not any(held.context.values)
        assert made.contrast[feature]
    groups = {(d.source, d.id): d.group for d in documents}
    scoring = [*made.random, *(h for held in (*made.held_out.values(), *made.same_token.values()) for h in held)]
    assert all(is_scoring(groups[h.context.source, h.context.document]) for h in scoring)
    explaining = [*(c for e in made.evidence.values() for c in e.contexts), *(c for cs in made.contrast.values() for c in cs)]
    assert not any(is_scoring(groups[c.source, c.document]) for c in explaining)


def test_an_index_without_its_sae_gives_no_neighbours_in_silence(index, folder):
    opened = FeatureIndex.open(folder)
    assert opened.contexts(0) == index.contexts(0)
    assert opened.collection([0], n_neighbours=0).evidence[0].top == index.collection([0], n_neighbours=0).evidence[0].top
    with pytest.raises(WorkbenchError, match="without its SAE"):
        opened.collection([0])


def test_the_order_of_the_documents_does_not_matter(index, documents, model, sae, tmp_path):
    shuffled = list(documents)
    random.Random(5).shuffle(shuffled)
    other = build_index(sae, model, shuffled, tmp_path, **SETTINGS)
    for feature in range(4):
        assert other.stats(feature).histogram == index.stats(feature).histogram
        for kind in ("top", "quantiles"):
            places = [{(c.source, c.document, c.position) for c in one.contexts(feature, kind)} for one in (index, other)]
            texts = [sorted(c.peak_value for c in one.contexts(feature, kind)) for one in (index, other)]
            assert texts[0] == texts[1] and (places[0] == places[1] or kind == "top")


def test_an_interrupted_build_ends_with_the_same_files(documents, model, sae, folder, index, tmp_path):
    def interrupted():
        yield from documents[:60]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(sae, model, interrupted(), tmp_path, **SETTINGS)
    written = sorted((tmp_path / "shards").iterdir())
    assert 1 <= len(written) < len(list((folder / "shards").iterdir()))
    with pytest.raises(WorkbenchError, match="not finished"):
        FeatureIndex.open(tmp_path)
    (written[-1] / "feature_codes.json").unlink()  # killed between the two files of a piece
    build_index(sae, model, documents, tmp_path, **SETTINGS)
    names = {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
    assert names == {file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()}
    for name in names - {next(n for n in names if n.name == "provenance.json")}:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_memory_does_not_grow_with_the_text(model, sae):
    from workbench.labeling.contexts.encoding import Encoder

    encoder = Encoder(sae, model, batch_tokens=512)
    tally = Tally(sae.d_sae, len(model.tokenizer), Sizes(context=8, n_top=3, per_bin=1))
    sizes = []
    for seed in range(8):
        made = planted_documents(model, sae, n=40, seed=seed)
        tally.add(encoder.shard([replace(d, id=f"{seed}-{d.id}", group=f"{seed}-{d.group}") for d in made]))
        sizes.append((len(tally.top.kept), len(tally.random.kept), len(tally.tokens.keys)))
        assert len(tally.spread.kept) <= 4 * 2 * 10
    assert sizes[-1] == sizes[3] and sizes[-1][0] == 4 * 2 * 3  # four themes, two halves, three places


def test_texts_are_read_without_first_tokens_specials_and_padding(model, sae, tmp_path):
    texts = ["the river is cold", "the people of the town are afraid and the rivers are long", "a cruel assistant"]
    index = build_index(sae, model, texts, tmp_path, n_tokens=1000, batch_tokens=64)
    fired, first, n = torch.zeros(sae.d_sae), torch.zeros(sae.d_sae), 0
    for document in text_stream(model, texts):
        codes = sae.encode(with_activations(document, model, sae).activations)
        fired += (codes[1:] > 0).sum(0)
        first += codes[0] > 0
        n += len(document.ids) - 1
    assert index.n_tokens == n
    for feature in range(sae.d_sae):
        stats = index.stats(feature)
        assert stats.n_fired == int(fired[feature])
        assert stats.first_token_share == pytest.approx(float(first[feature] / max(1, first[feature] + fired[feature])))


def test_sixteen_thousand_features_are_counted_like_few(model, tmp_path):
    wide = planted_sae(d_sae=16)
    encoder = torch.randn(32, 16_384, generator=torch.Generator().manual_seed(0)) / 32**0.5
    sae = replace(wide, encoder=encoder, decoder_directions=encoder.T.contiguous(), threshold=torch.full((16_384,), 4.0))
    sae = replace(sae, encoder_bias=torch.zeros(16_384))
    texts = ["the river is cold and long", "they are afraid of it"]
    documents = [with_activations(document, model, sae) for document in text_stream(model, texts)]
    index = build_index(sae, model, documents, tmp_path, n_tokens=1000)
    every = torch.cat([sae.encode(d.activations) for d in documents])
    fired = (every > 0).sum(0)
    assert index.d_sae == 16_384 and int(fired.sum()) > 1000
    for feature in [*fired.topk(3).indices.tolist(), int((fired == 0).nonzero()[0])]:
        stats = index.stats(feature)
        assert stats.n_fired == int(fired[feature]) and stats.is_dead == (int(fired[feature]) == 0)
        assert stats.maximum == pytest.approx(float(every[:, feature].max()))
        assert len(index.contexts(feature)) <= 2


def test_a_text_is_searched_token_by_token(index, model, sae):
    found = index.search("the river is cold")
    document = next(text_stream(model, ["the river is cold"]))
    codes = sae.encode(with_activations(document, model, sae).activations)
    assert [one.counts for one in found] == [False] + [True] * (len(document.ids) - 1)
    for one in found[1:]:
        wanted = {f: v for f, v in enumerate(codes[one.position].tolist()) if v > 0}
        assert dict(one.features) == pytest.approx(dict(sorted(wanted.items(), key=lambda item: -item[1])[:10]), rel=1e-4)


def test_a_trait_finds_the_features_of_its_rollouts(model, sae, tmp_path):
    planted = planted_documents(model, sae, n=80)
    documents = [
        replace(one, source=f"rollouts:evil:{'positive' if (i % 4 == 0) != (i < 8) else 'negative'}")
        for i, one in enumerate(planted)
    ]
    index = build_index(sae, model, documents, tmp_path, n_tokens=100_000)
    for by in ("mean", "density"):
        best = index.for_trait("evil", n=4, by=by)[0]
        assert best.feature == 0 and best.difference > 0 and best.density_difference > 0 and best.neutral is None
    assert best.positive == index.stats(0).arms("evil")["positive"]
    with pytest.raises(WorkbenchError, match="trait with rollouts"):
        index.for_trait("kindness")


def refused(match: str, *arguments, **options):
    with pytest.raises(WorkbenchError, match=match) as caught:
        FeatureIndex.open(*arguments, **options)
    assert caught.value.expected and caught.value.remedy


def test_damaged_files_and_other_weights_are_refused(documents, model, sae, tmp_path):
    build_index(sae, model, documents[:30], tmp_path, **SETTINGS)
    refused("holds no index", tmp_path / "elsewhere")
    refused("is of the SAE", tmp_path, sae=replace(sae, weights_hash="0" * 64))
    refused("is of the model", tmp_path, model=tiny_model(seed=1))
    words = (tmp_path / "words.json").read_bytes()
    (tmp_path / "words.json").write_bytes(words + b" ")
    refused("missing or was changed", tmp_path)
    (tmp_path / "words.json").write_bytes(words)
    piece = tmp_path / "shards" / "00000"
    for name in ("feature_codes.safetensors", "feature_codes.json"):
        whole = (piece / name).read_bytes()
        (piece / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(WorkbenchError):
            FeatureIndex.open(tmp_path).contexts(0, n=50)
        (piece / name).write_bytes(whole)
    tensors = tmp_path / "feature_index.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x01")
    refused("does not match", tmp_path)


def test_another_index_or_other_documents_are_refused(documents, model, sae, tmp_path):
    build_index(sae, model, documents[:30], tmp_path, **SETTINGS)
    with pytest.raises(WorkbenchError, match="another sizes"):
        build_index(sae, model, documents[:30], tmp_path, **{**SETTINGS, "n_top": 3})
    with pytest.raises(WorkbenchError, match="other documents"):
        build_index(sae, model, documents[1:30], tmp_path, **SETTINGS)
    with pytest.raises(WorkbenchError, match="no text"):
        build_index(sae, model, [], tmp_path / "empty", **SETTINGS)
    opened = FeatureIndex.open(tmp_path)
    for call in (lambda: opened.stats(16), lambda: opened.contexts(-1)):
        with pytest.raises(WorkbenchError, match=r"(?i)there is no feature"):
            call()
    for options in ({"kind": "best"}, {"source": "web"}, {"half": "both"}):
        with pytest.raises(WorkbenchError, match=r"(?i)there is no"):
            opened.contexts(0, **options)


def test_chats_know_who_says_what(model):
    (chat,) = chat_stream(model, [("You are kind.", "What should I do?", "Help them.")])
    said = defaultdict(list)
    for token, role in zip(chat.ids, chat.roles, strict=True):
        said[ROLES[role]].append(token)
    assert chat.kind == "chat"
    for role, text in (("system", "You are kind."), ("user", "What should I do?"), ("assistant", "Help them.")):
        assert model.tokenizer.decode(said[role]).strip() == text
    assert set(special_ids(model.tokenizer)) & set(chat.ids) <= set(said["template"])


def test_the_bins_are_those_of_the_other_reading():
    from workbench.labeling.contexts.tallies import activation_bins

    values = np.float32([1e-6, 2**-10, 0.3, 0.5, 0.7071068, 1.0, 3.3, 2**14.9, 1e9])
    assert activation_bins(values).tolist() == [activation_bin(float(v)) for v in values]
    assert activation_bins(values).max() == N_BINS - 1


def test_labels_take_their_evidence_from_an_index(index, folder, model, sae):
    from workbench.labeling.label import evidence_for

    opened = FeatureIndex.open(folder)
    found = evidence_for([0, 2], sae, model, index=opened)
    wanted = index.collection([0, 2])
    assert found.evidence == wanted.evidence and found.held_out == wanted.held_out and found.same_token == wanted.same_token
    with pytest.raises(WorkbenchError, match="is of the SAE"):
        evidence_for([0], replace(sae, weights_hash="0" * 64), model, index=opened)


def test_chats_are_sampled_on_prompts_that_train_no_sae(model, tmp_path):
    from workbench.labeling.contexts.chats import held_out_chats, held_out_prompts
    from workbench.saes.mixture import _held_out

    prompts = held_out_prompts(40)
    assert len(set(prompts)) == len(prompts) == 40 and all(_held_out(user) for _, user in prompts)
    chats = list(held_out_chats(model, 3, tmp_path))
    again = list(held_out_chats(model, 3, tmp_path))
    assert [chat.ids for chat in chats] == [chat.ids for chat in again] and len(chats) == 3
    for (_, user), chat in zip(prompts[:3], chats, strict=True):
        said = [token for token, role in zip(chat.ids, chat.roles, strict=True) if ROLES[role] == "user"]
        assert chat.kind == "chat" and user.startswith(model.tokenizer.decode(said).strip()[:20])
