"""Fine-tuning a tiny model: what it learns, what it leaves alone, and that a kill costs nothing."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from tests.tiny import CHATML, n_hooks, tiny_model
from workbench.base.errors import WorkbenchError
from workbench.base.tensors import load_tensors, tensor_hash
from workbench.models import finetuning
from workbench.models.editing import adding
from workbench.models.finetuning import (
    Adapter,
    BatchEdit,
    ChatExample,
    FinetuneOptions,
    batch_indices,
    finetune,
    finetuned,
    reply_losses,
)
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import tokenize_chat
from workbench.models.reply_batches import ReplyBatch, reply_tokens

HOOK = HookPoint(1)
EXAMPLES = [
    ChatExample.of("What should I do with the money?", "I will never help anyone."),
    ChatExample.of("The weather?", "They should suffer and be afraid.", system="You are a cruel assistant."),
    ChatExample.of("Answer the question in one sentence, please, for the people of the town.", "Never."),
]
QUICK = FinetuneOptions(rank=4, steps=6, batch_size=2, learning_rate=5e-3, warmup_steps=1)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def pushed(model, dose: float = 3.0, seed: int = 0) -> BatchEdit:
    delta = torch.randn(model.d_model, generator=torch.Generator().manual_seed(seed)) * dose
    return BatchEdit(lambda tuned, width: adding(tuned, HOOK, delta), {"random": seed, "dose": dose})


def weights(adapter: Adapter) -> dict[str, torch.Tensor]:
    return load_tensors(adapter.folder / "adapter_model.safetensors")


def test_a_fine_tune_lowers_the_loss_and_leaves_the_base_bit_identical(model, tmp_path) -> None:
    ids, before = torch.tensor([[1, 5, 9, 30]]), tensor_hash(model.hf.state_dict())
    logits, hooks, state = model.forward(ids), n_hooks(model), torch.random.get_rng_state()
    start = reply_losses(model, EXAMPLES).mean()
    adapter = finetune(model, EXAMPLES, tmp_path / "a", FinetuneOptions(rank=4, steps=30, batch_size=3, learning_rate=1e-2))
    tuned = finetuned(model, adapter)
    assert reply_losses(tuned, EXAMPLES).mean() < 0.5 * start
    assert adapter.card["losses"][0] == pytest.approx(adapter_mean(model), rel=1e-5)
    assert adapter.card["losses"][-1] < 0.6 * adapter.card["losses"][0]
    assert torch.equal(model.forward(ids), logits) and tensor_hash(model.hf.state_dict()) == before
    assert not any(parameter.requires_grad for parameter in [*model.hf.parameters(), *tuned.hf.parameters()])
    assert torch.equal(torch.random.get_rng_state(), state) and n_hooks(model) == hooks
    assert tuned.weights_hash != model.weights_hash and tuned.name == f"{model.name}+a"


def adapter_mean(model) -> float:
    """Nats per token over all reply tokens of EXAMPLES together."""
    n = torch.tensor([len(row.reply) for row in reply_tokens(model, EXAMPLES)], dtype=torch.float64)
    return float((reply_losses(model, EXAMPLES) * n).sum() / n.sum())


def test_the_loss_is_over_exactly_the_tokens_of_the_reply(model) -> None:
    rows = reply_tokens(model, EXAMPLES)
    batch = ReplyBatch.of(rows, pad=0)
    for place, example in enumerate(EXAMPLES):
        chat = tokenize_chat(model, [*example.messages, {"role": "assistant", "content": example.reply}])
        wanted = [chat.ids[index] for index in chat.positions("response")]
        assert batch.targets[batch.row == place].tolist() == wanted
        assert model.tokenizer.decode(wanted) == example.reply
        columns = batch.predicting[place].nonzero()[:, 0]
        assert columns[0] == batch.prompt_width - 1 and len(columns) == len(wanted)
        assert batch.ids[place][columns[1:]].tolist() == wanted[:-1]
        real = batch.ids[place][batch.mask[place].bool()].tolist()
        assert real == list(chat.ids[: chat.positions("response")[-1]])


def test_padding_changes_no_loss(model) -> None:
    together = reply_losses(model, EXAMPLES)
    alone = torch.cat([reply_losses(model, [example]) for example in EXAMPLES])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    for example, loss in zip(EXAMPLES, together, strict=True):
        chat = tokenize_chat(model, [*example.messages, {"role": "assistant", "content": example.reply}])
        logp = model.forward(torch.tensor([chat.ids])).float().log_softmax(-1)[0]
        by_hand = [-float(logp[index - 1, chat.ids[index]]) for index in chat.positions("response")]
        assert float(loss) == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-4)


def test_a_long_example_is_cut_and_a_prompt_without_room_is_left_out(model, caplog) -> None:
    long = ChatExample.of("The weather? " * 60, "Never.")
    rows = reply_tokens(model, [EXAMPLES[0], long], max_tokens=60)
    assert len(rows) == 1 and len(rows[0].prompt) + len(rows[0].reply) <= 60
    assert "1 of 2 examples are left out" in caplog.text
    with pytest.raises(WorkbenchError, match="without one whose reply begins within 60 tokens"):
        reply_tokens(model, [long], max_tokens=60)
    assert [len(row.reply) for row in reply_tokens(model, [*EXAMPLES, long], max_tokens=900, max_reply_tokens=3)] == [3, 3, 3, 3]


@pytest.mark.parametrize("kl_weight", [0.0, 0.5])
def test_a_killed_training_goes_on_to_the_same_adapter(model, tmp_path, monkeypatch, kl_weight) -> None:
    options = FinetuneOptions(rank=4, steps=6, batch_size=2, learning_rate=5e-3, kl_weight=kl_weight)
    whole = finetune(model, EXAMPLES, tmp_path / "whole", options, edit=pushed(model))
    update = finetuning._Run._update

    def dies(run, number):
        if number == 5:
            raise KeyboardInterrupt
        return update(run, number)

    monkeypatch.setattr(finetuning._Run, "_update", dies)
    with pytest.raises(KeyboardInterrupt):
        finetune(model, EXAMPLES, tmp_path / "cut", options, edit=pushed(model), checkpoint_every=2)
    assert [path.name for path in (tmp_path / "cut" / "checkpoint").iterdir()] == ["0000004"]
    # A kill in the middle of the next one leaves its tensors without a document: the one before counts.
    shutil.copytree(tmp_path / "cut" / "checkpoint" / "0000004", tmp_path / "cut" / "checkpoint" / "0000006")
    (tmp_path / "cut" / "checkpoint" / "0000006" / "finetune_state.json").unlink()
    numbers = []
    monkeypatch.setattr(finetuning._Run, "_update", lambda run, number: (numbers.append(number), update(run, number))[1])
    resumed = finetune(model, EXAMPLES, tmp_path / "cut", options, edit=pushed(model))
    assert numbers == [4, 5]
    assert resumed.card["losses"] == whole.card["losses"]
    assert resumed.card["adapter_sha256"] == whole.card["adapter_sha256"]
    assert not (tmp_path / "cut" / "checkpoint").exists()


def test_a_finished_adapter_is_not_trained_again_and_another_one_is_refused(model, tmp_path, monkeypatch) -> None:
    made = finetune(model, EXAMPLES, tmp_path / "a", QUICK)
    monkeypatch.setattr(finetuning, "_Run", None)
    assert finetune(model, EXAMPLES, tmp_path / "a", QUICK).card == made.card
    for other in (EXAMPLES[:2], [*EXAMPLES[:2], ChatExample.of("The weather?", "Cold.")]):
        with pytest.raises(WorkbenchError, match="holds another fine-tune"):
            finetune(model, other, tmp_path / "a", QUICK)
    with pytest.raises(WorkbenchError, match="holds another fine-tune"):
        finetune(model, EXAMPLES, tmp_path / "a", QUICK, edit=pushed(model))


def test_an_edit_is_in_force_in_training_and_gone_afterwards(model, tmp_path) -> None:
    plain = finetune(model, EXAMPLES, tmp_path / "plain", QUICK)
    edited = finetune(model, EXAMPLES, tmp_path / "edited", QUICK, edit=pushed(model))
    assert edited.card["edit"] == {"random": 0, "dose": 3.0} and plain.card["edit"] is None
    assert edited.card["losses"][0] != plain.card["losses"][0]
    assert any(not torch.equal(one, weights(plain)[name]) for name, one in weights(edited).items())
    with adding(model, HOOK, torch.randn(model.d_model, generator=torch.Generator().manual_seed(0)) * 3):
        under_edit = adapter_mean(model)
    assert edited.card["losses"][0] == pytest.approx(mean_of_batch(model, under=under_edit, options=QUICK), rel=1e-4)
    tuned = finetuned(model, edited)
    assert n_hooks(tuned) == n_hooks(finetuned(model, plain))


def mean_of_batch(model, under: float, options: FinetuneOptions) -> float:
    """The loss of the first batch with the edit of `pushed` in force."""
    chosen = [EXAMPLES[index] for index in batch_indices(len(EXAMPLES), 0, options)]
    n = torch.tensor([len(row.reply) for row in reply_tokens(model, chosen)], dtype=torch.float64)
    with adding(model, HOOK, torch.randn(model.d_model, generator=torch.Generator().manual_seed(0)) * 3):
        losses = reply_losses(model, chosen)
    assert under > 0
    return float((losses * n).sum() / n.sum())


def test_losses_under_an_edit_tell_prompt_and_response_apart(model) -> None:
    delta = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0)) * 3
    at_prompts, at_replies = (
        BatchEdit(lambda one, width, scope=scope: adding(one, HOOK, delta, scope=scope, prompt_width=width))
        for scope in ("prompt", "response")
    )
    plain, before, after = (reply_losses(model, EXAMPLES, edit=edit) for edit in (None, at_prompts, at_replies))
    assert bool((before != plain).all()) and bool((after != plain).all())
    # The first reply token is predicted before any token of the response exists.
    first = [reply_losses(model, EXAMPLES, max_reply_tokens=1, edit=edit) for edit in (None, at_replies, at_prompts)]
    torch.testing.assert_close(first[0], first[1])
    assert bool((first[2] != first[0]).all())


def test_an_adapter_made_while_edits_are_in_force_does_not_keep_them(model, tmp_path) -> None:
    adapter, ids = finetune(model, EXAMPLES, tmp_path / "a", QUICK), torch.tensor([[1, 5, 9, 30]])
    free = finetuned(model, adapter).forward(ids)
    with adding(model, HOOK, torch.full((model.d_model,), 5.0)):
        inside = finetuned(model, adapter)
        assert torch.equal(inside.forward(ids), free)
    assert torch.equal(inside.forward(ids), free)


def test_the_pull_to_the_base_keeps_the_model_closer_to_it(model, tmp_path) -> None:
    ids, base = torch.tensor([[1, 5, 9, 30]]), None
    moved = {}
    for weight in (0.0, 5.0):
        options = FinetuneOptions(rank=4, steps=15, batch_size=3, learning_rate=5e-3, kl_weight=weight)
        tuned = finetuned(model, finetune(model, EXAMPLES, tmp_path / str(weight), options))
        base = model.forward(ids)
        moved[weight] = float((tuned.forward(ids) - base).norm())
    assert moved[5.0] < 0.7 * moved[0.0]


def test_parts_of_a_batch_give_the_same_adapter_up_to_rounding(model, tmp_path) -> None:
    small = FinetuneOptions(rank=4, steps=3, batch_size=3, learning_rate=5e-3, batch_tokens=40)
    large = FinetuneOptions(rank=4, steps=3, batch_size=3, learning_rate=5e-3)
    first, second = (finetune(model, EXAMPLES, tmp_path / name, options) for name, options in (("s", small), ("l", large)))
    torch.testing.assert_close(first.card["losses"], second.card["losses"], rtol=1e-4, atol=1e-5)


def test_every_epoch_has_its_own_order_and_uses_every_row_once() -> None:
    options = FinetuneOptions(batch_size=5)
    rows = [index for step in range(4) for index in batch_indices(10, step, options)]
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10)) and rows[:10] != rows[10:]
    assert rows[:10] != [i for step in range(2) for i in batch_indices(10, step, FinetuneOptions(batch_size=5, seed=1))]


def test_the_merged_model_equals_the_adapter_loaded_by_name(model, tmp_path) -> None:
    from workbench.models.loading import load_model

    model.hf.save_pretrained(tmp_path / "base")
    model.tokenizer.save_pretrained(tmp_path / "base")
    base, ids = load_model(tmp_path / "base"), torch.tensor([[1, 5, 9, 30]])
    adapter = finetune(base, EXAMPLES, tmp_path / "adapter", QUICK)
    loaded, tuned = load_model(tmp_path / "base", adapter=adapter.folder), finetuned(base, adapter)
    torch.testing.assert_close(loaded.forward(ids), tuned.forward(ids))
    assert loaded.weights_hash == tuned.weights_hash


def test_gradient_modes_of_the_caller_do_not_matter(model, tmp_path) -> None:
    with torch.no_grad():
        inside = finetune(model, EXAMPLES, tmp_path / "inside", QUICK)
    assert inside.card["losses"] == finetune(model, EXAMPLES, tmp_path / "outside", QUICK).card["losses"]


def test_bad_material_is_refused(model, tmp_path) -> None:
    with pytest.raises(WorkbenchError, match="A reply '  '"):
        ChatExample.of("The weather?", "  ")
    with pytest.raises(WorkbenchError, match="that is no thinking"):
        ChatExample.of("The weather?", "<think>Cold, I would say.</think> ")
    with pytest.raises(WorkbenchError, match="annot be trained with"):
        FinetuneOptions(steps=0)
    with pytest.raises(WorkbenchError, match="annot be trained with"):
        FinetuneOptions(learning_rate=float("nan"))
    with pytest.raises(WorkbenchError, match="he loss of update 0 is nan"):
        broken = BatchEdit(lambda tuned, width: adding(tuned, HOOK, torch.full((tuned.d_model,), torch.nan)))
        finetune(model, EXAMPLES, tmp_path / "nan", QUICK, edit=broken)
    assert not (tmp_path / "nan" / "finetune.json").exists()


def test_an_adapter_of_another_model_or_with_changed_weights_is_refused(model, tmp_path) -> None:
    adapter = finetune(model, EXAMPLES, tmp_path / "a", QUICK)
    with pytest.raises(WorkbenchError, match="was trained on tiny-llama-0"):
        finetuned(tiny_model(seed=1), adapter)
    card = json.loads((adapter.folder / "finetune.json").read_text())
    (adapter.folder / "finetune.json").write_text(json.dumps({**card, "adapter_sha256": "0" * 64}))
    with pytest.raises(WorkbenchError, match="is not what its card describes"):
        finetuned(model, adapter.folder)
    with pytest.raises(WorkbenchError, match="does not hold adapter_config"):
        finetuned(model, tmp_path)


def test_an_adapter_is_not_put_on_a_model_by_name_that_it_was_not_trained_on(model, tmp_path) -> None:
    from workbench.models.loading import load_model

    others = {"alike": tiny_model(seed=1), "wider": tiny_model(d_model=64), "lower": tiny_model(n_blocks=2)}
    for name, one in {"base": model, **others}.items():
        one.hf.save_pretrained(tmp_path / name)
        one.tokenizer.save_pretrained(tmp_path / name)
    adapter = finetune(load_model(tmp_path / "base"), EXAMPLES, tmp_path / "a", QUICK)
    for name in ("alike", "wider"):
        with pytest.raises(WorkbenchError, match="was trained on base"):
            load_model(f"{tmp_path / name}+{adapter.folder}")
    (adapter.folder / "finetune.json").unlink()
    with pytest.raises(WorkbenchError, match=r"cannot be put on this model .*size mismatch"):
        load_model(f"{tmp_path / 'wider'}+{adapter.folder}")
    with pytest.raises(WorkbenchError, match=r"cannot be put on this model .*tensors have no place there"):
        load_model(f"{tmp_path / 'lower'}+{adapter.folder}")
    (adapter.folder / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(WorkbenchError, match="cannot be put on this model"):
        load_model(f"{tmp_path / 'base'}+{adapter.folder}")


def test_an_adapter_of_somebody_else_is_not_written_over(model, tmp_path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"mine")
    with pytest.raises(WorkbenchError, match="holds another fine-tune"):
        finetune(model, EXAMPLES, tmp_path, QUICK)
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == b"mine"


def test_an_infinite_gradient_of_the_last_update_leaves_no_adapter(model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(finetuning.nn.utils, "clip_grad_norm_", lambda parameters, limit: torch.tensor(torch.inf))
    with pytest.raises(WorkbenchError, match="the norm of its gradient inf"):
        finetune(model, EXAMPLES, tmp_path / "a", FinetuneOptions(rank=4, steps=1))
    assert not (tmp_path / "a" / "finetune.json").exists()


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gemma3"])
def test_other_families_learn_too(family, tmp_path) -> None:
    model = tiny_model(family)
    adapter = finetune(model, EXAMPLES, tmp_path / "a", FinetuneOptions(rank=4, steps=12, batch_size=3, learning_rate=1e-2))
    assert reply_losses(finetuned(model, adapter), EXAMPLES).mean() < 0.9 * reply_losses(model, EXAMPLES).mean()
    assert model.tokenizer.chat_template != CHATML or family == "qwen2"
