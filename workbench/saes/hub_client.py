"""The hub's client as the workbench uses it: address and token from the environment, answers as three-part errors."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

from workbench.base.errors import WorkbenchError

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def repository(text: str) -> tuple[str, str]:
    """(owner/name, subfolder) of "owner/name[/sub/folder]"."""
    parts = text.strip("/").split("/")
    if len(parts) < 2 or not all(re.fullmatch(r"[A-Za-z0-9][\w.\-]*", part) and ".." not in part for part in parts):
        raise WorkbenchError(
            f"{text!r} is not a hub repository", "owner/name, or owner/name/folder", "look it up on the hub's page"
        )
    return "/".join(parts[:2]), "/".join(parts[2:])


def token() -> str | None:
    """The hub token of the environment; files that other tools keep tokens in are not read."""
    return next((value for name in TOKENS if (value := os.environ.get(name))), None)


def endpoint() -> str | None:
    """The hub's address as HF_ENDPOINT says; None for the hub itself."""
    return os.environ.get("HF_ENDPOINT") or None


def api() -> Any:
    """A client that sends the environment's token, or none."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), token=token() or False, library_name="persona-workbench")


@contextlib.contextmanager
def told(repo: str, action: str) -> Iterator[None]:
    """What the hub or the connection answers, as a three-part error; the token never shows."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        raise _refused(repo, action, status, _redacted(str(error))) from None
    except Exception as error:
        if not _is_connection(error):
            raise
        first = next(iter(str(error).strip().splitlines()), "")
        raise WorkbenchError(
            f"could not {action} {repo} ({_redacted(f'{type(error).__name__}: {first}')[:240]})",
            f"an answer of {endpoint() or 'https://huggingface.co'}",
            "check the network and HF_ENDPOINT, then run the command again; nothing was left half-written",
        ) from None


def _is_connection(error: Exception) -> bool:
    """An operating system's error, or one of the HTTP library that the hub's client uses (httpx, in later versions httpx2)."""
    homes = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return isinstance(error, OSError) or bool(homes & {"httpx", "httpx2", "httpcore", "httpcore2", "requests"})


def _refused(repo: str, action: str, status: int | None, text: str) -> WorkbenchError:
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")[:240]
    if status in (401, 403):
        return WorkbenchError(
            f"the hub refused to {action} {repo} (status {status})",
            "a token in HF_TOKEN that may do this, and terms accepted where the repository has some",
            "set HF_TOKEN, or check its rights" if token() else "set HF_TOKEN; a repository that does not exist answers the same",
        )
    if status == 404:
        found = f"the hub has no {repo}, or no such file in it (status 404)"
        return WorkbenchError(found, "a repository that exists", "check the name")
    return WorkbenchError(f"could not {action} {repo}: {first}", "an answer of the hub", "run the command again later")


def _redacted(text: str) -> str:
    for name in TOKENS:
        if secret := os.environ.get(name):
            text = text.replace(secret, "[token]")
    return text
