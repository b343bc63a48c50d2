"""The stand-in speaks the Hub's protocol: the library's own reader streams from it."""

from __future__ import annotations

from pathlib import Path

from command_line import run_python
from hub.stand_in import HUB_ID, serving

from radcap.data.phantom.dataset import write_phantom


def test_datasets_streams_from_it(tmp_path: Path) -> None:
    folder = tmp_path / "phantom"
    write_phantom(folder, train_rows=30, val_rows=10, seed=0)
    program = (
        "import datasets, sys\n"
        "stream = datasets.load_dataset(sys.argv[1], 'alignment', split='train', streaming=True,\n"
        "    columns=['image', 'conversations'])\n"
        "print(sum(1 for row in stream.decode(False)))\n"
        "del stream; import gc; gc.collect()\n"
    )
    with serving(folder) as hub:
        variables = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
        done = run_python(program, HUB_ID, **variables)
    assert done.stdout.strip() == "30", done.stderr
