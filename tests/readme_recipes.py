"""How a test runs each command line of README.md, keyed by the line as it stands there.

A new command line gets a new entry, or tests/test_readme.py fails:

    Run("...")                   run as it stands, with these words added to keep it small
    Run(prepare=make_pictures)   ... after a function has put what it needs into the folder
    Covered("tests/x.py::name")  that test runs the same command
    Cloud()                      needs a cloud, which is not at hand
    Extra("name")                pip install 'radcap[name]': the extra exists
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

# A model and a data set so small that a run takes seconds: two steps of eight rows.
TINY = (
    "runtime=cpu model=tiny data.batch_size=8 data.workers=0 data.phantom.train_rows=320 "
    "data.phantom.val_rows=40 trainer.caption_rows=8 debug.limit=2"
)


@dataclass(frozen=True)
class Run:
    """Run the line with `words` added, after `prepare`; it must end with status 0."""

    words: str = ""
    prepare: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class Covered:
    """Another test runs this command."""

    test: str


@dataclass(frozen=True)
class Extra:
    """The install of an extra."""

    name: str


@dataclass(frozen=True)
class Cloud:
    """gcloud with a bucket or a VM: nothing here can run it."""


def make_pictures(folder: Path) -> None:
    """PICTURES and captions.csv."""
    (folder / "PICTURES").mkdir()
    lines = ["file,caption,modality"]
    for number in range(48):
        noise = np.random.default_rng(number).integers(0, 256, (40, 30), np.uint8)
        Image.fromarray(noise).save(folder / "PICTURES" / f"{number}.png")
        lines.append(f"{number}.png,ct scan of the lung chest with edema present,ct")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")


def make_data(folder: Path) -> None:
    """my_data, from such pictures."""
    from radcap.data.phantom.dataset import write_phantom

    write_phantom(folder / "my_data", train_rows=40, val_rows=16, processes=1)


def make_theirs(folder: Path) -> None:
    """FOLDER, of another form."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "FOLDER").mkdir()
    rows = []
    for number in range(12):
        picture = io.BytesIO()
        Image.fromarray(np.full((40, 30), 20 * number, np.uint8)).save(picture, "PNG")
        rows.append({"image": picture.getvalue(), "text": f"a scan of grey {number}"})
    for split in ("train", "test"):
        pq.write_table(pa.Table.from_pylist(rows), folder / "FOLDER" / f"{split}.parquet")


def make_study(folder: Path) -> None:
    """scan.png, study/, more/ and weights that caption them: runs/default and pytorch_model.bin."""
    import pydicom
    import safetensors.torch
    import torch

    from radcap import ImageCaptioningModel

    for name in ("runs/default", "study", "more/a"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("scan.png", "study/1.png"):
        Image.fromarray(np.full((40, 30), 80, np.uint8)).save(folder / name)
    shipped = Path(pydicom.__file__).parent / "data/test_files/CT_small.dcm"
    (folder / "more/a/1.dcm").write_bytes(shipped.read_bytes())
    state = ImageCaptioningModel(30_522, 16, 1, 8).state_dict()
    safetensors.torch.save_file(state, folder / "runs/default/model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")


def make_fetched(folder: Path) -> None:
    """runs/epoch1, brought home, and scan.png."""
    make_study(folder)
    (folder / "runs/default").rename(folder / "runs/epoch1")


RECIPES: dict[str, Run | Covered | Extra | Cloud] = {
    "bash scripts/quickstart.sh": Covered("tests/test_readme.py::test_the_two_scripts"),
    "bash scripts/test.sh": Covered("tests/test_readme.py::test_the_two_scripts"),
    "python -m radcap.doctor": Run(),
    "python -m radcap.doctor +experiment=epoch1": Covered(
        "tests/test_doctor.py::test_a_gated_data_set_without_and_with_a_token"
    ),
    "python -m radcap.train": Run(TINY),
    "python -m radcap.train +experiment=smoke": Covered(
        "tests/test_train.py::test_smoke_leaves_curves_checkpoints_and_captions"
    ),
    "python -m radcap.train -m +experiment=smoke optimizer.lr=1e-3,3e-3 seed=1,2": Run(
        "runtime=cpu debug.limit=2 trainer.caption_rows=4 trainer.samples=0"
    ),
    "python -m radcap.train +experiment=epoch1": Run(
        f"{TINY} data=phantom model.encoder_weights=none"
    ),
    "python -m radcap.train data.path=my_data run.name=mine trainer.max_steps=500": Run(
        TINY, prepare=make_data
    ),
    "python -m radcap.train +experiment=epoch1 data=phantom runtime=cpu "
    "model.encoder_weights=none data.batch_size=8 trainer.max_steps=3": Covered(
        "tests/test_train.py::test_the_cards_model_trains_with_the_documented_command"
    ),
    "python scripts/make_dataset.py PICTURES captions.csv my_data --val-list held_out.txt": Run(
        prepare=make_pictures
    ),
    "python -m radcap.train data.path=my_data run.name=mine": Run(TINY),
    "python -m radcap.evaluate run=runs/mine": Run("runtime=cpu data.workers=0"),
    "python -m radcap.caption runs/mine - < held_out.txt": Run("--max-len 4"),
    "python -m radcap.train data.path=FOLDER data.caption_column=text data.val_split=test "
    "run.name=theirs": Run(TINY, prepare=make_theirs),
    "python -m radcap.train data=rocov2 model=card run.name=rocov2": Covered(
        "tests/data/test_columns.py::test_rocov2_is_one_word"
    ),
    "scripts/tpu_vm.sh create --zone us-central1-a --dry-run": Run(),
    "scripts/tpu_vm.sh setup --zone us-central1-a --dry-run": Run(),
    "scripts/tpu_vm.sh train --zone us-central1-a --watch --mirror gs://BUCKET/runs/epoch1 "
    "+experiment=epoch1 --dry-run": Run(),
    "scripts/tpu_vm.sh status --zone us-central1-a --dry-run": Run(),
    "scripts/tpu_vm.sh tensorboard --zone us-central1-a --dry-run": Run(),
    "scripts/tpu_vm.sh delete --zone us-central1-a --dry-run": Run(),
    "source .venv/bin/activate": Covered(
        "tests/test_readme.py::test_the_environment_is_named_before_it_is_used"
    ),
    "gcloud storage cp --recursive gs://BUCKET/runs/epoch1 runs/": Cloud(),
    "gcloud compute tpus tpu-vm scp --recurse radcap:radcap/runs/epoch1 runs/ "
    "--zone us-central1-a": Cloud(),
    "python -m radcap.caption runs/epoch1 scan.png": Run("--max-len 4", prepare=make_fetched),
    "mkdir -p -m 777 runs": Run(),
    "docker build -f Dockerfile.tpu -t radcap .": Covered(
        "tests/test_dockerfile.py::test_what_it_copies_installs_and_its_dependencies_resolve"
    ),
    "docker run --rm --init --privileged --network=host --ulimit memlock=-1 -e HF_TOKEN "
    '-v "$PWD/runs:/home/radcap/runs" radcap radcap.train +experiment=epoch1 runtime=tpu': Covered(
        "tests/test_dockerfile.py::test_what_it_copies_installs_and_its_dependencies_resolve"
    ),
    "python -m radcap.rehearse +experiment=smoke rehearse.kill_at=[5,12]": Covered(
        "tests/test_rehearse.py::test_a_killed_run_draws_the_unbroken_curve"
    ),
    "tensorboard --logdir runs": Covered(
        "tests/training/log/test_dashboard.py::test_every_chart_shows_tags_that_a_run_writes"
    ),
    "torchrun --nproc-per-node=4 -m radcap.train +experiment=epoch1 runtime=cuda": Covered(
        "tests/test_runtimes.py::test_processes_finish_with_one_summary"
    ),
    "python -m radcap.train +experiment=smoke runtime=xla_cpu runtime.devices=8": Covered(
        "tests/test_runtimes.py::test_one_training_graph_through_everything_that_a_run_does"
    ),
    "python -m radcap.train +experiment=epoch1 trainer.profile_steps=[10,15]": Run(
        f"{TINY} data=phantom model.encoder_weights=none debug.limit=16"
    ),
    "python -m radcap.caption runs/default scan.png study/ 'more/**/*.dcm'": Run(
        "--max-len 4", prepare=make_study
    ),
    "python -m radcap.caption pytorch_model.bin scan.png --json --beams 4": Run(
        "--max-len 4", prepare=make_study
    ),
    "find . -name '*.dcm' | python -m radcap.caption owner/name - --csv > captions.csv": Covered(
        "tests/test_caption.py::test_weights_of_the_hub_by_its_address_and_token"
    ),
    "python -m radcap.evaluate run=runs/default": Covered(
        "tests/test_evaluate.py::test_a_run_is_scored_as_its_own_validation_scored_it"
    ),
    "python -m radcap.evaluate run=runs/default evaluate.split=train evaluate.rows=1000": Covered(
        "tests/test_evaluate.py::test_some_rows_and_some_captions_are_spread_over_the_split"
    ),
    "python -m radcap.evaluate evaluate.weights=pytorch_model.bin data=radimagenet_vqa": Covered(
        "tests/test_evaluate.py::test_the_commit_that_an_evaluation_began_with_is_kept"
    ),
    "python -m radcap.evaluate run=runs/default data.path=my_data evaluate.out=scores/mine": (
        Covered("tests/test_evaluate.py::test_known_rows_give_known_figures")
    ),
    "python -m radcap.export runs/default exported": Run(prepare=make_study),
    "python -m radcap.export runs/default exported --push me/my-captioner --private": Covered(
        "tests/test_export.py::test_a_push_sends_every_file_and_keeps_the_token_to_itself"
    ),
    "pip install 'radcap[demo,dicom]'": Extra("demo"),
    "python -m radcap.demo runs/default": Covered(
        "tests/demo_app/test_process.py::test_a_signal_ends_it_in_good_order"
    ),
    "python -m radcap.export runs/default exported --space": Covered(
        "tests/test_export.py::test_the_requirements_of_a_space_are_met_here_and_all_of_them"
    ),
    "python exported/space/app.py": Covered(
        "tests/demo_app/test_process.py::test_a_space_runs_by_its_app_with_its_own_copy_of_radcap"
    ),
    "python -m radcap.export runs/default exported --space --push me/my-page": Covered(
        "tests/test_export.py::test_a_space_is_written_into_the_export_and_pushed_as_one"
    ),
    "pip install 'radcap[preflight]'": Extra("preflight"),
    "python -m radcap.preflight +experiment=epoch1 preflight.topology=v3-8": Covered(
        "tests/test_preflight.py::test_epoch1_fits_v3_8_without_a_gather"
    ),
}
