"""Folders of configs as Hydra reads them: radcap's own, and a user's, that may hold anything.

YAML takes 1_1 for 11, 012 for 10, 1:30 for 90 and yes for a truth. The schema knows better: the
word of an option that holds a text is taken as it stands, and numbers are decimal ones.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from radcap.config.schema import text_options
from radcap.errors import ConfigError
from radcap.files.mappings import MOST_YAML_BYTES, read_yaml
from radcap.files.reading import read_text

_TAG = "tag:yaml.org,2002:"
_NUMBERS = {_TAG + "int", _TAG + "float"}
_NO_DECIMAL = re.compile(r"[-+]?0[0-9_]+|.*:.*")  # octal, and counted in sixties
_EVERYWHERE = "_global_"


class WordsFolder(FileConfigSource):
    """A folder of configs whose words stay words."""

    @staticmethod
    def scheme() -> str:
        """What an address of such a folder begins with."""
        return "words"

    @classmethod
    def address(cls, folder: Path) -> str:
        """A folder's address. Lets Hydra know of its kind."""
        SourcesRegistry.instance().register(cls)
        return f"{cls.scheme()}://{folder}"

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file.

        Args:
            config_path: such as `train` or `experiment/mine`.

        Raises:
            ConfigError: it is no text, or begins with a header that is none.
        """
        file = self._file(config_path)
        try:
            # Editors begin some files with a mark, behind which Hydra would not see `# @package`.
            text = read_text(file, most=MOST_YAML_BYTES)
            header = ConfigSource._get_header_dict(text)
        except FileNotFoundError:
            raise ConfigLoadError(f"Config not found : {file}") from None
        except ValueError as error:
            raise ConfigError(f"a file of YAML is broken: {file}: {error}") from None
        group = config_path.rpartition("/")[0].replace("/", ".")
        package = (header["package"] or group).replace("_group_", group)
        content = _read(text, package.removeprefix(_EVERYWHERE).removeprefix("."), str(file))
        return ConfigResult(
            provider=self.provider,
            path=f"{self.scheme()}://{self.path}",
            config=OmegaConf.create({} if content is None else content),
            header=header,
        )

    def _file(self, config_path: str) -> Path:
        return Path(self.path) / self._normalize_file_name(config_path)


class CheckedFolder(WordsFolder):
    """A folder whose files are plain YAML, neither deep nor huge once its aliases are followed."""

    @staticmethod
    def scheme() -> str:
        """What an address of such a folder begins with."""
        return "checked"

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file.

        Raises:
            ConfigError: it is none, or holds what would take all the memory there is.
        """
        file = self._file(config_path)
        if file.exists():  # else Hydra says what there is
            try:
                read_yaml(file)
            except ValueError as error:
                raise ConfigError(f"a file of YAML is broken: {error}") from None
        return super().load_config(config_path)


def _read(text: str, package: str, name: str) -> Any:
    """The values of a file of configs.

    Args:
        text: of the file.
        package: the section that they belong to; empty for the whole configuration.
        name: of the file, for messages.

    Raises:
        yaml.YAMLError: it is none.
    """
    loader = get_yaml_loader()(text)
    loader.name = name
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if isinstance(node, yaml.MappingNode):
            entries = [
                (key, _as_choices(value) if key.value == "defaults" else value)
                for key, value in node.value
            ]
            node = yaml.MappingNode(node.tag, entries, node.start_mark, node.end_mark)
        return loader.construct_document(_Words().node(node, package))
    finally:
        loader.dispose()


class _Words:
    """Reads scalars as the options of their names want them."""

    def __init__(self) -> None:
        self._texts = text_options()

    def node(self, node: yaml.Node, path: str) -> yaml.Node:
        """A node of the option, or the section, of a name; those that are shared stay as they are.

        Args:
            path: full name; empty for the whole configuration.
        """
        if isinstance(node, yaml.MappingNode):
            entries = [(key, self._entry(key, value, path)) for key, value in node.value]
            return yaml.MappingNode(node.tag, entries, node.start_mark, node.end_mark)
        if isinstance(node, yaml.SequenceNode):
            values = [self.node(value, path) for value in node.value]
            return yaml.SequenceNode(node.tag, values, node.start_mark, node.end_mark)
        if node.style is None and self._is_word(node, path):
            return _text(node)
        return node

    def _entry(self, key: yaml.Node, value: yaml.Node, path: str) -> yaml.Node:
        if key.tag == _TAG + "merge":  # its entries stand beside this key
            return self.node(value, path)
        return self.node(value, f"{path}.{key.value}" if path else str(key.value))

    def _is_word(self, node: yaml.ScalarNode, path: str) -> bool:
        if path in self._texts:
            # Nothing at all is no word, null is one where it is no value.
            is_null = node.tag == _TAG + "null"
            return not is_null or (node.value != "" and not self._texts[path])
        return node.tag in _NUMBERS and _NO_DECIMAL.fullmatch(node.value) is not None


def _as_choices(node: yaml.Node) -> yaml.Node:
    """The list of defaults: what it chooses from groups are names of files."""
    if isinstance(node, yaml.MappingNode):
        entries = [(key, _as_choices(value)) for key, value in node.value]
        return yaml.MappingNode(node.tag, entries, node.start_mark, node.end_mark)
    if isinstance(node, yaml.SequenceNode):
        values = [_as_choices(value) for value in node.value]
        return yaml.SequenceNode(node.tag, values, node.start_mark, node.end_mark)
    return node if node.style is not None or node.tag == _TAG + "null" else _text(node)


def _text(node: yaml.ScalarNode) -> yaml.ScalarNode:
    return yaml.ScalarNode(_TAG + "str", node.value, node.start_mark, node.end_mark)
