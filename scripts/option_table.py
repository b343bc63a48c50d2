"""Write README.md's table of options anew, from the schema and configs/.

python scripts/option_table.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from radcap.config.compose import compose
from radcap.config.options import declared, value_of

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- options: scripts/option_table.py -->", "<!-- end of options -->"


def table() -> str:
    """Every option with its default value and what it means, as Markdown."""
    config = compose([])
    rows = [
        f"| `{name}` | `{_shown(value_of(config, name))}` | {_meaning(one.metadata)} |"
        for name, one in declared(type(config)).items()
    ]
    return "\n".join(["| option | default | means |", "| --- | --- | --- |", *rows])


def with_table(readme: str) -> str:
    """The text of README.md with the table put in its place."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def _meaning(metadata: Any) -> str:
    choices = metadata["choices"]
    return metadata["meaning"] + (f" ({', '.join(choices)})" if choices else "")


def _shown(value: Any) -> str:
    """A value as YAML has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def main() -> int:
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
