"""Label files as text: blocks for what people edit, one line each for contexts, tokens and numbers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any


class FlowList(list):
    """A list that is written on one line."""


class FlowMap(dict):
    """A mapping that is written on one line."""


def to_yaml(document: Mapping[str, Any]) -> str:
    """The document as text, always the same for the same document."""
    import yaml

    return yaml.dump(document, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=1000)


@functools.cache
def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Lists are indented below their name; nothing is written as an alias."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def flow_list(dumper: Any, data: Any) -> Any:
        return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)

    def flow_map(dumper: Any, data: Any) -> Any:
        return dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=True)

    def text(dumper: Any, data: str) -> Any:
        plain = data == " ".join(data.split())  # white space at the edges and line ends stay visible
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=None if plain else '"')

    Dumper.add_representer(FlowList, flow_list)
    Dumper.add_representer(FlowMap, flow_map)
    Dumper.add_representer(str, text)
    return Dumper
