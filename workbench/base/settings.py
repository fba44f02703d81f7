"""Settings, strongest first: a flag, WORKBENCH_<NAME> in the environment, ./workbench.toml, the user's config file, the default.

A file holds settings at its top, and in tables named after commands the flags of those commands (`[report]`, `[sae.train]`),
which only the command line reads. A key that nobody knows, a value of another kind and a secret are errors with file and line.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import WorkbenchError, is_close, nearest
from .store import MOST_TEXT, check_ordinary

APP_NAME = "persona-workbench"
ENVIRONMENT = "WORKBENCH_"

_NUMBER, _TRUTH = int, bool
SETTINGS: dict[str, tuple[type, str]] = {
    "model": (str, "model name, folder, GGUF file or hub id"),
    "sae": (str, "SAE id or folder"),
    "hook": (str, "hook point of the vector"),
    "judge": (str, "who filters the rollouts"),
    "judge_model": (str, "the judge's model"),
    "judge_dtype": (str, "type of a local judge's weights"),
    "base_url": (str, "the endpoint of judges and writers"),
    "explainer": (str, "who names features"),
    "explainer_model": (str, "the explainer's model"),
    "explainer_url": (str, "the explainer's endpoint"),
    "generate_with": (str, "chat server that samples the answers"),
    "generate_model": (str, "that server's name for the model"),
    "seed": (_NUMBER, "seed of everything that is drawn"),
    "samples": (_NUMBER, "answers per question, instruction and arm"),
    "max_new_tokens": (_NUMBER, "longest answer, in tokens"),
    "batch_size": (_NUMBER, "answers sampled together"),
    "n_features": (_NUMBER, "features that get labels and rows"),
    "dtype": (str, "type of the model's weights"),
    "device": (str, "where the model runs"),
    "max_memory": (str, "bound of weights, caches and batches together"),
    "choose_layer": (str, "how the block is chosen"),
    "strict": (_TRUTH, "refuse an SAE that fails the fitness gate"),
    "annotator": (str, "the name that signs labels"),
    "quiet": (_TRUTH, "no progress display"),
    "cache": (str, "folder of downloads and converted models"),
    "shelf": (str, "folder of SAEs and labels"),
    "traits": (str, "folder of your own traits"),
    "assets": (str, "folder of wheels to take assets from"),
    "offline": (_TRUTH, "download nothing"),
    "accept_terms": (_TRUTH, "accept the terms of assets that have some"),
    "neuronpedia_url": (str, "where single explanations are asked for"),
    "task_store": (str, "an object store (s3://...) for the files of --engine ray on machines that share no file system"),
    "neuronpedia_exports_url": (str, "where all of a source are"),
}
"""Every setting: its type and what it is, in words."""

ENVIRONMENT_ONLY = {"api_key": "the key of every endpoint", "progress": "0: no progress; 1: lines without a terminal"}
"""What is read from the environment alone. Keys are never shown, and refused in files."""

_SECRET = re.compile(r"(^|_)(api_?key|key|token|secret|password|passwd|credentials?)$")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True)
class Found:
    """A setting's value and where it came from: "flag", "WORKBENCH_MODEL", "workbench.toml, line 3" or "default"."""

    name: str
    value: Any
    source: str


def setting(name: str, flag_value: Any = None, default: Any = None) -> Any:
    """The value of setting `name`: `flag_value`, WORKBENCH_<NAME>, a TOML file, or `default`.

    Names are lower case with underscores. Environment values are strings, those of yes-or-no settings excepted; an empty one
    counts as unset. Raises WorkbenchError for a file with a mistake.
    """
    return find_setting(name, flag_value, default).value


def find_setting(name: str, flag_value: Any = None, default: Any = None) -> Found:
    """As `setting`, with the place that the value came from."""
    if flag_value is not None:
        return Found(name, flag_value, "flag")
    variable = ENVIRONMENT + name.upper()
    if value := os.environ.get(variable):
        return Found(name, _truth(variable, value) if SETTINGS.get(name, (str,))[0] is bool else value, variable)
    for path in config_files():
        values = read_config(path)
        if not isinstance(values.get(name, {}), dict):  # `[sae.train]` is a table of the command `sae`
            return Found(name, values[name], place_of(path, name))
    return Found(name, default, "default")


def _truth(variable: str, value: str) -> bool:
    if value.lower() not in _TRUE + _FALSE:
        raise WorkbenchError(f"{variable} is {value!r}", "1 or 0, true or false, yes or no", f"correct or unset {variable}")
    return value.lower() in _TRUE


def config_files() -> tuple[Path, Path]:
    """The configuration files in the order in which they are asked: the working folder's, then the user's."""
    import platformdirs

    return Path("workbench.toml"), Path(platformdirs.user_config_dir(APP_NAME, appauthor=False)) / "config.toml"


def read_config(path: Path) -> dict[str, Any]:
    """The checked contents of a configuration file, {} without one; tables are left to the command line."""
    try:
        if not path.exists() or os.path.realpath(path) == os.devnull:  # a link to it masks a file
            return {}
        check_ordinary(path, MOST_TEXT)
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WorkbenchError(f"{path} is not valid TOML ({error})", "a TOML file", "correct or remove it") from error
    except OSError as error:
        raise WorkbenchError(f"cannot read {path}: {error.strerror}", "a readable file", "correct or remove it") from error
    for name, value in _keys(values):
        if _SECRET.search(name[-1].lower().replace("-", "_")) and not isinstance(value, dict):
            raise WorkbenchError(
                f"{place_of(path, *name)} holds `{'.'.join(name)}`, which looks like a secret",
                "no secrets in files: they get copied, committed and shared",
                "remove it, and set it in the environment (WORKBENCH_API_KEY, HF_TOKEN)",
            )
    for name, value in values.items():
        if not isinstance(value, dict):
            _check(path, name, value)
    return values


def _keys(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in values.items():
        yield (*path, name), value
        if isinstance(value, dict):
            yield from _keys(value, (*path, name))


def _check(path: Path, name: str, value: Any) -> None:
    if name not in SETTINGS:
        raise unknown_key(path, (name,), SETTINGS)
    kind = SETTINGS[name][0]
    if type(value) is not kind:
        said = {str: "text in quotes", int: "a whole number", bool: "true or false"}[kind]
        raise WorkbenchError(f"{place_of(path, name)} sets `{name}` to {value!r}", f"{said}: {SETTINGS[name][1]}", "correct it")


def unknown_key(path: Path, key: tuple[str, ...], known: Iterable[str]) -> WorkbenchError:
    """The error for a key that nobody knows: the nearest one, file and line."""
    near = nearest(key[-1].replace("-", "_"), known)
    if key[-1] in near:  # a command, where a setting or a flag is wanted
        found = f"{place_of(path, *key)} gives `{'.'.join(key)}` a value, which is a command"
        return WorkbenchError(found, f"a table of its flags, [{'.'.join(key)}]", "correct it")
    said = "a command or a setting" if len(key) == 1 else f"a flag of `workbench {' '.join(key[:-1])}`"
    close = f"did you mean `{'.'.join((*key[:-1], near[0]))}`?" if near and is_close(key[-1].replace("-", "_"), near[0]) else ""
    table = f"the flags of a command stand in a table of its name, [{key[0]}]; else remove it" if len(key) == 1 else "remove it"
    found = f"{place_of(path, *key)} sets `{'.'.join(key)}`, which nobody knows"
    return WorkbenchError(found, f"{said}, such as {', '.join(near[:4])}", close or table)


def place_of(path: Path, *key: str) -> str:
    """"FILE, line N" of a key (FILE alone when it stands there in a form that only a TOML parser finds)."""
    table: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            table = _dotted(header[1])
        elif (found := re.match(r"\s*([\w.\"'\s-]+?)\s*=", line)) is None or [*table, *_dotted(found[1])] != list(key):
            continue
        if header and table != list(key):
            continue
        return f"{path}, line {number}"
    return str(path)


def _dotted(text: str) -> list[str]:
    return [part.strip().strip("\"'") for part in text.split(".")]


def cache_dir() -> Path:
    """Where downloads and converted models are kept: WORKBENCH_CACHE, or the user's cache folder (not created)."""
    import platformdirs

    chosen = setting("cache")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir(APP_NAME, appauthor=False))
