"""The curves of a run: files of JSON lines (metrics, val_metrics, data_health) and TensorBoard's.

After a resume each step has one value: what an earlier process logged past the restored step is
taken out of all three.

A perplexity that no float holds is the text "Infinity" in the files, which JSON has no number for,
and infinity in TensorBoard, whose numbers end at 3.4e38.

TensorBoard's tags (metrics.jsonl has the same values under the name after the slash):
    train/  loss perplexity tokens lr grad_norm epoch images_per_s step_s
    data/   wait_s skipped truncated retries hub_wait_s
    val/    loss perplexity loss_per_caption rows tokens slots/NAME samples/N captions
and those of `dashboard`. What belongs into one chart, the loss and perplexity of training, of
validation and of the data set's bound, is in `train/`, `val/` and `bound/` of the run folder too:
TensorBoard has a colour for each folder, and none for each tag.
"""

from __future__ import annotations

import io
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from radcap.errors import RadcapError
from radcap.files.atomic import new_file, write_atomically
from radcap.files.durable import DurableFile
from radcap.files.mappings import figure_in, json_text, parse_json
from radcap.files.markup import plain
from radcap.files.reading import check_regular, read_lines
from radcap.scoring.perplexity import perplexity
from radcap.training.log import dashboard
from radcap.training.log.captioned import captioned_png
from radcap.training.run.folder import CURVES

if TYPE_CHECKING:
    from radcap.data.phantom.dataset import Floor
    from radcap.inference.scoring_pass import CaptionedRow

_LONGEST_LINE = 100_000  # bytes

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

    def __init__(
        self,
        folder: Path | None,
        *,
        resume_step: int,
        tensorboard: bool,
        floor: Floor | None = None,
    ) -> None:
        """Open the log to go on after `resume_step` (0 for a new run).

        Args:
            folder: the run folder; None writes nothing, where another process does.
            floor: the lowest reachable loss, for TensorBoard.
        """
        if folder is None:
            self._steps, self._validations, self._health = (
                DurableFile(Path(os.devnull)) for _ in range(3)
            )
            self._validated: set[int] = set()
            self._events = self._curves = None
            return
        self._steps = _open_after(folder / "metrics.jsonl", resume_step)
        self._validations = _open_after(folder / "val_metrics.jsonl", resume_step)
        self._health = _open_after(folder / "data_health.jsonl", resume_step)
        self._validated = {step for _, step in _numbered_lines(folder / "val_metrics.jsonl")}
        _drop_events_after(folder, resume_step)
        self._events = _Events(folder) if tensorboard else None
        for home in (folder / name for name in CURVES):
            if home.is_symlink():
                raise RadcapError(f"{home} is a link, which would lead out of the run folder")
            _drop_events_after(home, 0 if tensorboard else resume_step)
        self._curves = _Curves(folder, floor) if tensorboard else None

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
            dashboard.scalars(scalars),
            record["time"],
        )
        if self._curves is not None:
            self._curves.add("train", record)

    def health(self, record: Mapping[str, Any]) -> None:
        """Log how the data fares after a log interval: `DataHealth.record`."""
        self._health.append(_line(record))

    def validation(
        self, record: Mapping[str, Any], slots: Mapping[str, float], floor: Floor | None = None
    ) -> bool:
        """Log one validation. A step has one: False for a repeated one.

        Args:
            record: `step`, `time` and the scores.
            slots: share of captions that state the right label, by slot.
            floor: the lowest reachable loss, for TensorBoard.
        """
        if record["step"] in self._validated:
            return False
        self._validated.add(record["step"])
        self._validations.append(_line({**record, "slots": dict(slots)}))
        scores = {f"val/{n}": v for n, v in record.items() if n not in ("step", "time")}
        scores |= {f"val/slots/{name}": value for name, value in slots.items()}
        values = [*dashboard.scalars(scores), *dashboard.floor_lines(floor)]
        self._write(record["step"], values, record["time"])
        if self._curves is not None:
            self._curves.add("val", record)
            self._curves.add_bound(record, floor)
        return True

    def samples(self, step: int, samples: Sequence[CaptionedRow]) -> None:
        """Show validation images with their captions.

        Args:
            step: the step of the weights.
            samples: with images uint8 [3, H, W].
        """
        values = []
        rows = ["| image | generated | reference |", "| --- | --- | --- |"]
        for number, sample in enumerate(samples):
            texts = {"says": sample.generated, "data says": sample.reference}
            encoded, height, width = captioned_png(sample.image, texts)
            picture = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=encoded
            )
            values.append(Summary.Value(tag=f"val/samples/{number}", image=picture))
            rows.append(f"| {number} | {plain(sample.generated)} | {plain(sample.reference)} |")
        self._write(step, [*values, dashboard.text("val/captions", "\n".join(rows))])

    def show(self, step: int, values: Sequence[Any]) -> None:
        """Show what `radcap.training.log.dashboard` made."""
        if values:
            self._write(step, values)

    def flush_to_disk(self) -> None:
        """Let the curves outlive the machine."""
        for file in (self._steps, self._validations, self._health):
            file.flush_to_disk()

    def close(self) -> None:
        """Close all files."""
        self._steps.close()
        self._validations.close()
        self._health.close()
        if self._events is not None:
            self._events.close()
        if self._curves is not None:
            self._curves.close()

    def _write(self, step: int, values: Sequence[Any], when: float | None = None) -> None:
        if self._events is not None:
            when = time.time() if when is None else when
            self._events.add(Event(wall_time=when, step=step, summary=Summary(value=values)))


class _Events:
    """A file of TensorBoard's. (Its own writer works in a thread that dies with a full disk.)"""

    def __init__(self, folder: Path) -> None:
        seconds, rest = divmod(time.time_ns(), 10**9)  # the rest tells two of one second apart
        name = f"events.out.tfevents.{seconds}.{socket.gethostname()}.{os.getpid()}.{rest:09d}"
        self._file = DurableFile(folder / name)
        self.add(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, *events: Event) -> None:
        records = io.BytesIO()
        writer = RecordWriter(records)
        for event in events:
            writer.write(event.SerializeToString())
        self._file.append(records.getvalue())

    def close(self) -> None:
        self._file.close()


class _Curves:
    """The folders that TensorBoard shows as runs in colours of their own, with what goes together.

    They hold nothing that is not in the files of JSON lines, and are made from these at every
    start: also for a run that began without them, or comes back from where it was copied to.
    """

    def __init__(self, folder: Path, floor: Floor | None) -> None:
        """Write what the run has logged so far.

        Args:
            folder: the run folder, with the JSON lines that stay.
            floor: None for data without one, which has no bound.

        Raises:
            RadcapError: something else is in the place of a folder.
        """
        self._files = {name: _Events(_made(folder / name)) for name in CURVES if _has(name, floor)}
        steps, validations = (
            [parse_json(line) for line, _ in _numbered_lines(folder / file)]
            for file in ("metrics.jsonl", "val_metrics.jsonl")
        )
        self._files["train"].add(*filter(None, map(_point, steps)))
        self._files["val"].add(*filter(None, map(_point, validations)))
        if floor is not None:
            begin = (steps or [{}])[0]
            self.add_bound({**begin, "step": 0}, floor)
            for record in validations:
                self.add_bound(record, floor)

    def add(self, name: str, record: Mapping[str, Any]) -> None:
        """Add a point of a record with `step`, `time`, `loss` and `perplexity`."""
        if (point := _point(record)) is not None:
            self._files[name].add(point)

    def add_bound(self, record: Mapping[str, Any], floor: Floor | None) -> None:
        """Add a point of the bound at a record's step."""
        if floor is not None and "bound" in self._files:
            loss = floor.nats_per_token
            self.add("bound", {**record, "loss": loss, "perplexity": perplexity(loss)})

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _has(name: str, floor: Floor | None) -> bool:
    return name != "bound" or floor is not None


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise RadcapError(f"{folder} cannot be made: {error.strerror}") from None
    return folder


def _point(record: Mapping[str, Any]) -> Event | None:
    """Loss and perplexity of a record; None for one without them, which no run has written."""
    found = {
        name: math.inf if record.get(name) == math.inf else figure_in(record, name)
        for name in ("loss", "perplexity")
    }
    values = {name: value for name, value in found.items() if value is not None}
    if not values:
        return None
    when = figure_in(record, "time")
    return Event(
        wall_time=time.time() if when is None else when,
        step=record["step"],
        summary=Summary(value=dashboard.scalars(values)),
    )


def _line(record: Mapping[str, Any]) -> bytes:
    return json_text(record).encode() + b"\n"


def _open_after(path: Path, step: int) -> DurableFile:
    """Open a file of JSON lines for more, without the lines past a step or torn by a kill."""
    try:
        kept = [line for line, number in _numbered_lines(path) if number <= step]
    except FileNotFoundError:
        return DurableFile(path)
    write_atomically(path, b"".join(kept).decode(errors="replace"))
    return DurableFile(path)


def _numbered_lines(path: Path) -> Iterator[tuple[bytes, int]]:
    """The whole lines of a file of JSON lines, each with its step.

    Without those that a kill or a fault of the disk has torn, or that no run has written.

    Raises:
        FileNotFoundError: there is none.
        RadcapError: it cannot be read.
    """
    try:
        for line in read_lines(path, most=_LONGEST_LINE):
            try:
                record = parse_json(line)
            except ValueError:
                continue
            step = record.get("step") if isinstance(record, dict) else None
            if isinstance(step, int) and step > 0:
                yield line.rstrip(b"\r\n") + b"\n", step
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RadcapError(f"{path} cannot be read: {error.strerror}") from None


def _stays(event: Any, step: int) -> bool:
    told = event.summary
    return event.step <= step and not (dashboard.is_closing(told) or dashboard.is_opening(told))


def _records(path: Path) -> Iterator[bytes]:
    """The records of one of TensorBoard's files, up to one that was cut off or is damaged.

    TensorBoard's own loader imports TensorFlow where that is installed, which takes a TPU for
    itself; this reader, which it uses elsewhere, never does.
    """
    from tensorboard.compat.tensorflow_stub import errors, pywrap_tensorflow

    reader = pywrap_tensorflow.PyRecordReader_New(str(path))
    while True:
        try:
            reader.GetNext()
        except (errors.OutOfRangeError, errors.DataLossError):
            return
        yield reader.record()


def _drop_events_after(folder: Path, step: int) -> None:
    """Rewrite TensorBoard's files without the events past a step, an earlier end, and what the run
    was told before.

    TensorBoard itself hides such events only for some kinds of summary, and readers of the files
    see both.
    """
    for path in sorted(folder.glob("events.out.tfevents.*")):
        try:
            check_regular(path)
        except OSError as error:
            raise RadcapError(f"{path} cannot be read: {error.strerror}") from None
        if step == 0:  # the run begins again, its texts at step 0 too
            path.unlink()
            continue
        try:
            records = list(_records(path))
            kept = [record for record in records if _stays(Event.FromString(record), step)]
        except (DecodeError, MemoryError, OverflowError, ValueError):
            raise RadcapError(f"{path} is damaged; delete it, and its curves with it") from None
        if len(kept) <= 1:  # its first record holds the format's version
            path.unlink()
            continue
        if len(kept) == len(records):
            continue
        with new_file(path) as file:
            writer = RecordWriter(file)
            for record in kept:
                writer.write(record)
