"""How much the small index of a run reads; nothing heavy is imported."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class RunSizes:
    """How much is read beside the rollouts: `n_chats` chats are sampled, `n_text_tokens` tokens of OpenWebText go through the
    model; `n_top` and `per_bin` contexts are kept as in `build_index`."""

    n_chats: int = 32
    n_text_tokens: int = 25_000
    n_top: int = 12
    per_bin: int = 2

    def to_dict(self) -> dict[str, int]:
        """Plain JSON values."""
        return asdict(self)
