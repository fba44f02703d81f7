"""Scopes position by position: what is edited at every pass, whoever runs the passes."""

from __future__ import annotations

import contextlib

import pytest
import torch

from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models.generation import generate
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import tokenize_chat
from workbench.models.sampling import Sampling
from workbench.models.scopes import SCOPES
from workbench.steering.apply import steered
from workbench.steering.edits import Edit

HOOK = HookPoint(1)
U = torch.randn(32, generator=torch.Generator().manual_seed(0))
IDS = torch.arange(9, 29).reshape(2, 10)


@pytest.fixture(scope="module", params=("llama", "qwen3", "gemma3"))
def model(request):
    return tiny_model(request.param, seed=1)


@contextlib.contextmanager
def edited_places(model, edits, prompt_width=None):
    """Collects, per pass, which tokens [batch, seq] the edits changed."""
    before, places = [], []
    with model.hooked({HOOK: lambda h: before.append(h.clone())}), steered(model, edits, prompt_width):
        with model.hooked({HOOK: lambda h: places.append((h != before[-1]).any(dim=-1))}):
            yield places


def push(scope: str, dose: float | list[float] = 0.3) -> Edit:
    return Edit.add(U, dose, hook=HOOK, scope=scope)


def expected(scope: str, n: int, width: int) -> list[bool]:
    return [{"all": True, "prompt": c < width, "response": c >= width, "predicting": c >= width - 1}[scope] for c in range(n)]


@pytest.mark.parametrize("scope", SCOPES)
def test_a_pass_over_prompt_and_response_together(model, scope) -> None:
    with edited_places(model, push(scope), prompt_width=[4, 7]) as places:
        model.forward(IDS)
    assert places[0].tolist() == [expected(scope, 10, 4), expected(scope, 10, 7)]


@pytest.mark.parametrize("scope", SCOPES)
def test_a_prompt_in_chunks_and_several_tokens_a_step(model, scope) -> None:
    from transformers import DynamicCache

    cache, pieces = DynamicCache(config=model.hf.config), (3, 2, 1, 3, 1)
    with edited_places(model, push(scope), prompt_width=5) as places, torch.no_grad():
        for piece in IDS.split(pieces, dim=1):
            model.hf(input_ids=piece, past_key_values=cache, use_cache=True)
    assert torch.cat(places, dim=1).tolist() == [expected(scope, 10, 5)] * 2


@pytest.mark.parametrize("scope", SCOPES)
def test_padding_on_the_right(model, scope) -> None:
    mask = torch.ones(2, 10, dtype=torch.long)
    mask[0, 6:] = 0
    with edited_places(model, push(scope)) as places:
        model.forward(IDS, mask)
    assert places[0].tolist() == [expected(scope, 6, 6) + [False] * 4, expected(scope, 10, 10)]


def test_a_new_prompt_starts_anew_and_a_pass_in_between_disturbs_nothing(model) -> None:
    from transformers import DynamicCache

    with edited_places(model, push("response")) as places, torch.no_grad():
        for width in (4, 6):
            cache = DynamicCache(config=model.hf.config)
            model.hf(input_ids=IDS[:, :width], past_key_values=cache, use_cache=True)
            model.forward(IDS)  # another text, no cache
            with model.without_hooks():
                model.forward(IDS[:, :2])
            model.hf(input_ids=IDS[:, width : width + 2], past_key_values=cache, use_cache=True)
    widths = [(tuple(one.shape), bool(one.any()), bool(one.all())) for one in places]
    assert widths == [((2, 4), False, False), ((2, 10), False, False), ((2, 2), True, True),
                      ((2, 6), False, False), ((2, 10), False, False), ((2, 2), True, True)]  # fmt: skip


@pytest.mark.parametrize("scope", SCOPES)
def test_chunked_prefill_assisted_decoding_and_the_static_cache_give_the_tokens_of_plain_generation(model, scope) -> None:
    edits, ids = push(scope, 0.8), IDS[:1, :6]
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    options["attention_mask"] = torch.ones_like(ids)
    with steered(model, edits):
        plain = model.hf.generate(ids, **options)
    assistant = tiny_model("llama", seed=2).hf if model.name.startswith("tiny-llama") else None
    with steered(model, edits, prompt_width=6):
        assert torch.equal(model.hf.generate(ids, **options, prefill_chunk_size=4), plain)
        assert torch.equal(model.hf.generate(ids, **options, cache_implementation="static"), plain)
        if assistant is not None:
            assert torch.equal(model.hf.generate(ids, **options, assistant_model=assistant), plain)


@pytest.mark.parametrize("scope", SCOPES)
def test_greedy_tokens_of_transformers_are_ours(model, scope) -> None:
    texts = ("Hi", "What should I do with the money?")
    prompts = [tokenize_chat(model, [{"role": "user", "content": text}], add_generation_prompt=True) for text in texts]
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt.ids) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with steered(model, [push(scope, [0.8, -0.5]), Edit.cap(U, 2.0, hook=HookPoint(2), scope=scope)]):
        theirs = model.hf.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0)[:, width:]
        rows = {}
        for indices, made in generate(model, prompts, Sampling(max_new_tokens=8, temperature=0), row_seeds=[0, 0]):
            rows |= dict(zip(indices, made, strict=True))
    for row in (0, 1):
        ours = rows[row].response_ids
        assert ours == tuple(theirs[row, : len(ours)].tolist())
        assert len(ours) == 8 or int(theirs[row, len(ours)]) in model.end_tokens


def test_beams_share_the_amounts_of_their_prompt(model) -> None:
    doses = [0.0, 0.9]
    options = {"max_new_tokens": 5, "num_beams": 3, "do_sample": False, "pad_token_id": 0}

    def beams(ids, edit):
        with steered(model, edit):
            return model.hf.generate(ids, attention_mask=torch.ones_like(ids), **options)

    together = beams(IDS, push("predicting", doses))
    for row, dose in enumerate(doses):
        alone = beams(IDS[row : row + 1], push("predicting", dose))[0]
        assert torch.equal(together[row][: len(alone)], alone)
    with pytest.raises(WorkbenchError, match="4 rows met a batch of 6"):
        beams(IDS, push("predicting", [0.1, 0.2, 0.3, 0.4]))


def test_widths_and_amounts_follow_rows_that_are_sorted_into_batches(model) -> None:
    from workbench.models.capture import capture
    from workbench.models.likelihood import token_logprobs
    from workbench.models.prompts import ChatTokens

    rows = [list(range(9, 9 + n)) for n in (5, 12, 8, 6)]
    starts, doses = [2, 7, 4, 5], [0.3, -0.5, 0.0, 0.9]
    chats = [ChatTokens(tuple(row), {"response": ((start, len(row)),)}) for row, start in zip(rows, starts, strict=True)]
    wanted = [list(range(start, len(row))) for row, start in zip(rows, starts, strict=True)]
    for size in (1000, 12):
        with steered(model, push("predicting", doses), prompt_width=starts):
            means = {i: one.means[0] for at, made in capture(model, chats, [HOOK], batch_tokens=size)
                     for i, one in zip(at, made, strict=True)}  # fmt: skip
            logps = token_logprobs(model, rows, wanted, batch_tokens=size)
        for i, row in enumerate(rows):
            with steered(model, push("predicting", doses[i]), prompt_width=starts[i]):
                ((_, (alone,)),) = capture(model, [chats[i]], [HOOK])
                (logp,) = token_logprobs(model, [row], [wanted[i]])
            torch.testing.assert_close(means[i], alone.means[0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(logps[i], logp, rtol=1e-4, atol=1e-4)


def test_prompt_widths_that_are_none_are_refused(model) -> None:
    for width in (0, [], [3, -1]):
        with pytest.raises(WorkbenchError, match="width"), steered(model, push("all"), prompt_width=width):
            pass
    with pytest.raises(WorkbenchError, match="3 rows met a batch of 2"), steered(model, push("all"), prompt_width=[1, 2, 3]):
        model.forward(IDS)


def test_an_unknown_scope_lists_the_known_ones() -> None:
    with pytest.raises(WorkbenchError, match="predicting"):
        push("reply")


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
def test_the_cache_is_known_by_either_of_its_names(name):
    """transformers 5.24 hands it to the decoder as `cache`; a token after it is no prompt."""
    from transformers import DynamicCache

    from workbench.models.scopes import PassWatch

    model, cache = tiny_model("llama"), DynamicCache()
    watch = PassWatch(model)
    for ids in (torch.tensor([[3, 4, 5]]), torch.tensor([[6]])):
        watch._look(None, (), {"input_ids": ids, name: cache})
        assert watch.places is not None
        found = watch.places.within("response").tolist()
        cache.update(torch.zeros(1, 1, ids.shape[1], 4), torch.zeros(1, 1, ids.shape[1], 4), 0)
        assert found == [[ids.shape[1] == 1] * ids.shape[1]]
