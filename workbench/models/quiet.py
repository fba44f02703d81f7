"""Loading with transformers and peft without what they say and do beside it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers draws bars of its own while loading; ours is the one shown."""
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging

    was_on, bar = logging.is_progress_bar_enabled(), gguf.tqdm
    logging.disable_progress_bar()
    gguf.tqdm = partial(bar, disable=True)  # this one asks no setting
    try:
        yield
    finally:
        gguf.tqdm = bar
        if was_on:
            logging.enable_progress_bar()


@contextmanager
def quiet_peft() -> Iterator[None]:
    """peft draws start values from torch's global generator, and asks transformers in a way that it warns of."""
    import torch

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
