"""A user's own folder of configs, as Hydra reads it, with an eye on what its files hold."""

from __future__ import annotations

import io
from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from radcap.errors import ConfigError
from radcap.mappings import MOST_YAML_BYTES, read_yaml
from radcap.reading import read_text


class CheckedFolder(FileConfigSource):
    """A folder whose files are plain YAML, neither deep nor huge once its aliases are followed.

    Editors begin some files with a byte order mark, behind which Hydra would not see `# @package`.
    """

    @staticmethod
    def scheme() -> str:
        """What an address of such a folder begins with."""
        return "checked"

    @classmethod
    def register(cls) -> None:
        """Let Hydra know of it."""
        SourcesRegistry.instance().register(cls)

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file.

        Raises:
            ConfigError: it is none, or holds what would take all the memory there is.
        """
        file = Path(self.path) / self._normalize_file_name(config_path)
        if not file.exists():
            return super().load_config(config_path)  # which says what there is
        try:
            read_yaml(file)
            text = read_text(file, most=MOST_YAML_BYTES)
        except ValueError as error:
            raise ConfigError(f"a file of YAML is broken: {error}") from None
        try:
            header = self._get_header_dict(text)
        except ValueError as error:
            raise ConfigError(f"a file of YAML is broken: {file}: {error}") from None
        return ConfigResult(
            config=OmegaConf.load(io.StringIO(text)),
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=header,
        )
