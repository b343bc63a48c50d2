"""The curves of a run: files of JSON lines (metrics, val_metrics, data_health) and TensorBoard's.

After a resume each step has one value: what an earlier process logged past the restored step is
taken out of all three.

TensorBoard's tags (metrics.jsonl has the same values under the name after the slash):
    train/  loss perplexity tokens lr grad_norm epoch images_per_s step_s
    data/   wait_s skipped truncated retries hub_wait_s
    val/    loss perplexity loss_per_caption rows tokens slots/NAME samples/N captions
"""

from __future__ import annotations

import io
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.record_writer import RecordWriter

from radcap.training.durable import DurableFile
from radcap.training.folder import write_atomically

_TAGS = {
    "loss": "train/loss",
    "perplexity": "train/perplexity",
    "tokens": "train/tokens",
    "lr": "train/lr",
    "grad_norm": "train/grad_norm",
    "epoch": "train/epoch",
    "images_per_s": "train/images_per_s",
    "step_s": "train/step_s",
    "data_wait_s": "data/wait_s",
}


class RunLog:
    """Writes the curves of one run, at once: a killed process loses none of it."""

    def __init__(self, folder: Path | None, *, resume_step: int, tensorboard: bool) -> None:
        """Open the log to go on after `resume_step` (0 for a new run).

        Args:
            folder: the run folder; None writes nothing, where another process does.
        """
        if folder is None:
            self._steps, self._validations, self._health = (
                DurableFile(Path(os.devnull)) for _ in range(3)
            )
            self._validated: set[int] = set()
            self._events = None
            return
        self._steps = _open_after(folder / "metrics.jsonl", resume_step)
        self._validations = _open_after(folder / "val_metrics.jsonl", resume_step)
        self._health = _open_after(folder / "data_health.jsonl", resume_step)
        lines = (folder / "val_metrics.jsonl").read_text().splitlines()
        self._validated = {json.loads(line)["step"] for line in lines}
        _drop_events_after(folder, resume_step)
        self._events = _Events(folder) if tensorboard else None

    def step(self, record: Mapping[str, Any], data: Mapping[str, float]) -> None:
        """Log one training step.

        Args:
            record: the line of metrics.jsonl: `step`, `time` (seconds since 1970) and the rest.
            data: further values of the data room, shown under data/ in TensorBoard.
        """
        self._steps.append(_line(record))
        scalars = {tag: record[name] for name, tag in _TAGS.items()}
        scalars |= {f"data/{name}": value for name, value in data.items()}
        self._write(
            record["step"],
            [Summary.Value(tag=t, simple_value=v) for t, v in scalars.items()],
            record["time"],
        )

    def health(self, record: Mapping[str, Any]) -> None:
        """Log how the data fares after a log interval: `DataHealth.record`."""
        self._health.append(_line(record))

    def validation(self, record: Mapping[str, Any], slots: Mapping[str, float]) -> bool:
        """Log one validation. A step has one: False for a repeated one.

        Args:
            record: `step`, `time` and the scores.
            slots: share of captions that state the right label, by slot.
        """
        if record["step"] in self._validated:
            return False
        self._validated.add(record["step"])
        self._validations.append(_line({**record, "slots": dict(slots)}))
        scalars = {name: value for name, value in record.items() if name not in ("step", "time")}
        scalars |= {f"slots/{name}": value for name, value in slots.items()}
        self._write(
            record["step"],
            [Summary.Value(tag=f"val/{name}", simple_value=v) for name, v in scalars.items()],
            record["time"],
        )
        return True

    def samples(
        self, step: int, images: Sequence[np.ndarray], captions: Sequence[tuple[str, str]]
    ) -> None:
        """Show validation images with their captions.

        Args:
            step: the step of the weights.
            images: uint8 [3, H, W] each.
            captions: (generated, reference) each.
        """
        values = []
        for number, image in enumerate(images):
            height, width = image.shape[1:]
            encoded = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(encoded, "PNG")
            picture = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=encoded.getvalue()
            )
            values.append(Summary.Value(tag=f"val/samples/{number}", image=picture))
        rows = [f"| {number} | {made} | {true} |" for number, (made, true) in enumerate(captions)]
        table = "\n".join(["| image | generated | reference |", "| --- | --- | --- |", *rows])
        self._write(step, [*values, _text("val/captions", table)])

    def text(self, tag: str, markdown: str) -> None:
        """Show a text, at step 0."""
        self._write(0, [_text(tag, markdown)])

    def close(self) -> None:
        """Close all files."""
        self._steps.close()
        self._validations.close()
        self._health.close()
        if self._events is not None:
            self._events.close()

    def _write(self, step: int, values: list[Any], when: float | None = None) -> None:
        if self._events is not None:
            when = time.time() if when is None else when
            self._events.add(Event(wall_time=when, step=step, summary=Summary(value=values)))


class _Events:
    """A file of TensorBoard's. (Its own writer works in a thread that dies with a full disk.)"""

    def __init__(self, folder: Path) -> None:
        seconds, rest = divmod(time.time_ns(), 10**9)  # the rest tells two of one second apart
        name = f"events.out.tfevents.{seconds}.{socket.gethostname()}.{os.getpid()}.{rest}"
        self._file = DurableFile(folder / name)
        self.add(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, event: Event) -> None:
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        self._file.append(record.getvalue())

    def close(self) -> None:
        self._file.close()


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _text(tag: str, markdown: str) -> Any:
    tensor = TensorProto(
        dtype=DT_STRING,
        string_val=[markdown.encode()],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary.Value(tag=tag, metadata=plugin, tensor=tensor)


def _open_after(path: Path, step: int) -> DurableFile:
    """Open a file of JSON lines for more, without the lines past a step or torn by a kill."""
    if path.exists():
        lines = path.read_text(errors="replace").splitlines()
        kept = [line + "\n" for line in lines if 0 < _step_of(line) <= step]
        write_atomically(path, "".join(kept))
    return DurableFile(path)


def _step_of(line: str) -> int:
    """The step of a JSON line, 0 for a line that a kill or a fault of the disk has torn."""
    try:
        record = json.loads(line)
    except ValueError:
        return 0
    step = record.get("step") if isinstance(record, dict) else None
    return step if isinstance(step, int) else 0


def _drop_events_after(folder: Path, step: int) -> None:
    """Rewrite TensorBoard's files without the events past a step.

    TensorBoard itself hides such events only for some kinds of summary, and readers of the files
    see both.
    """
    for path in sorted(folder.glob("events.out.tfevents.*")):
        if step == 0:  # the run begins again, its texts at step 0 too
            path.unlink()
            continue
        records = list(RawEventFileLoader(str(path)).Load())
        kept = [record for record in records if Event.FromString(record).step <= step]
        if len(kept) <= 1:  # its first record holds the format's version
            path.unlink()
            continue
        if len(kept) == len(records):
            continue
        beside = path.with_name(f".{path.name}.partial")
        beside.unlink(missing_ok=True)
        with beside.open("xb") as file:
            writer = RecordWriter(file)
            for record in kept:
                writer.write(record)
        beside.replace(path)
