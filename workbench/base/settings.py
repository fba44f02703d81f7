"""Settings in one order: a flag, then the environment, then ./workbench.toml, then the user's config file."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from .errors import WorkbenchError

APP_NAME = "persona-workbench"


def setting(name: str, flag_value: Any = None, default: Any = None) -> Any:
    """The value of setting `name`: `flag_value`, WORKBENCH_<NAME>, a TOML file, or `default`.

    Names are lower case with underscores. Environment values are strings; an empty one counts as unset.
    """
    if flag_value is not None:
        return flag_value
    if value := os.environ.get(f"WORKBENCH_{name.upper()}"):
        return value
    for path in config_files():
        values = _read_toml(path)
        if name in values:
            return values[name]
    return default


def config_files() -> tuple[Path, Path]:
    """The configuration files in the order in which they are asked: the working folder's, then the user's."""
    import platformdirs

    return Path("workbench.toml"), Path(platformdirs.user_config_dir(APP_NAME, appauthor=False)) / "config.toml"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WorkbenchError(f"{path} is not valid TOML ({error})", "a TOML file", "correct or remove it") from error
    except OSError as error:
        raise WorkbenchError(f"cannot read {path}: {error.strerror}", "a readable file", "correct or remove it") from error


def cache_dir() -> Path:
    """Where downloads and converted models are kept: WORKBENCH_CACHE, or the user's cache folder (not created)."""
    import platformdirs

    chosen = setting("cache")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir(APP_NAME, appauthor=False))
