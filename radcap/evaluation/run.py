"""The story of an evaluation: weights, rows, captions, scores, report."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from radcap.config.schema import Config, DataConfig
from radcap.data.collate import Batch, encode_captions
from radcap.data.columns import USUAL, Columns
from radcap.data.loader import Loader
from radcap.errors import EXIT_DONE, EXIT_STOPPED, ConfigError, RadcapError
from radcap.evaluation.folder import EvaluationFolder
from radcap.evaluation.report import Scored, write_report
from radcap.evaluation.results import RowResult, WorstRows
from radcap.evaluation.rows import RowScorer
from radcap.evaluation.settings import pinned_revision
from radcap.forms.lists import place
from radcap.host.console import heartbeat, say
from radcap.inference.scoring_pass import ScoringPass, evenly
from radcap.model.weights import fingerprint
from radcap.runtime.base import Runtime
from radcap.runtime.launch import Launch
from radcap.runtime.select import open_runtime
from radcap.serving.pretrained import Pretrained, load_pretrained
from radcap.training.inputs import Inputs
from radcap.training.log.clock import rate_text
from radcap.training.log.progress import Progress
from radcap.training.processes import check_same_start, decide
from radcap.training.signals import ECHO_OF_A_SIGNAL_S, Stopped, StopRequest
from radcap.training.step import row_loss_sums

if TYPE_CHECKING:
    from transformers import BertTokenizer

_FORMAT = 2
_SECONDS_BETWEEN_RESULTS = 10.0
_RESERVE = 20


class Evaluation:
    """An evaluation in progress.

    Attributes:
        folder: where its results lie.
        weights: what is scored.
        split: the split that is scored.
        origin: the weights in words for a report, which is shown to others: of a path the last
            part alone.
    """

    def __init__(self, config: Config, run: Path | None, launch: Launch) -> None:
        """Load the weights, open the data and the folder of the results.

        Args:
            config: the checked configuration.
            run: the run whose weights and data these are, as given; None without one.
            launch: this process among those that evaluate together.

        Raises:
            RadcapError: in one line, what is missing.
        """
        options = config.evaluate
        source = options.weights or run
        assert source is not None, "the command has seen to it"
        self.launch = launch
        self.split = options.split or config.data.val_split
        data = replace(config.data, train_split=self.split, val_split=self.split)
        trainer = replace(config.trainer, eval_rows=options.rows)
        self.config = replace(config, data=data, trainer=trainer)
        with heartbeat("loading the weights"):
            self.weights: Pretrained = load_pretrained(source)
        self.origin = self.weights.origin
        if Path(source).exists():  # it may be a Hub id
            self.origin = self.origin.replace(str(source), _last_part(source), 1)
        out = Path(options.out) if options.out else _default_folder(self.weights, source, config)
        self._fingerprint = fingerprint(self.weights.model.state_dict())
        self.folder = EvaluationFolder(out, fresh=options.fresh, is_ours=launch.is_first)
        try:
            self._begin(run)
        except BaseException:
            self.folder.close()
            raise

    def _begin(self, run: Path | None) -> None:
        options, data = self.config.evaluate, self.config.data
        # Asked for, else that of the results found here, else that of the training.
        began_with = self.folder.identity.get("data_revision")
        revision = data.revision or (began_with if isinstance(began_with, str) else None)
        self.inputs = Inputs(
            self.config,
            revision=revision or pinned_revision(run, self.config),
            launch=self.launch,
            tokenizer=self.weights.tokenizer,
        )
        part = self.inputs.num_val_rows < self.inputs.num_split_rows
        wanted = self.inputs.num_val_rows if options.captions is None else options.captions
        self.wanted = evenly(self.inputs.num_val_rows, wanted)
        self.folder.accept(
            {
                "format": _FORMAT,
                "weights": self._fingerprint,
                **asdict(self.weights.architecture),
                "vocabulary": _vocabulary_hash(self.weights.tokenizer),
                "data_revision": self.inputs.revision,
                "config": _config_and_columns(data),
                "split": self.split,
                "rows": self.inputs.num_val_rows,
                "lanes": data.lanes if part else None,  # they tell which rows a part is
                "captions": len(self.wanted),
                "beams": options.beams,
                "max_length": data.max_length,
                "max_pixels": data.max_pixels,
                "worst": options.worst,
            }
        )
        name = self.inputs.name
        self.folder.note({"data": name if data.path is None else _last_part(name)})

    def go(self) -> int:
        """Score what is not scored yet, and write the report.

        Returns:
            The exit status: 0 done, 75 after a signal.

        Raises:
            RadcapError: what ended the evaluation; what is scored is safe.
        """
        try:
            if len(self.folder.results) == self.inputs.num_val_rows:
                say(f"{self.folder.path} is finished; evaluate.fresh=true starts anew")
            elif not self._score_rest():
                say(
                    f"stopped after row {len(self.folder.results):,} of "
                    f"{self.inputs.num_val_rows:,}, saved; the same command goes on from there"
                )
                return EXIT_STOPPED
            if self.launch.is_first:
                what = (self.split, self.origin, self.weights.step)
                write_report(self.folder, Scored(self.config, self.inputs, *what))
            return EXIT_DONE
        finally:
            self.folder.close()

    def _score_rest(self) -> bool:
        """Score the rows that are left; False where a signal came before the last."""
        first_batch = len(self.folder.results) // self.config.data.batch_size
        # Loader processes are started before the device is opened.
        with heartbeat("starting the loader"):
            loader = self.inputs.scoring_loader(first_batch=first_batch)
        try:
            with heartbeat("opening the device"):
                runtime = open_runtime(self.config.runtime, threads=self.config.runtime.threads)
            try:
                try:
                    self._prepare(runtime)
                except RadcapError:
                    self.folder.forget()
                    raise
                return self._score_rows(runtime, loader, first_batch)
            finally:
                runtime.close()
        finally:
            loader.close()

    def _prepare(self, runtime: Runtime) -> None:
        runtime.check_batch_size(self.config.data.batch_size)
        if not runtime.can_caption:
            raise ConfigError(
                f"runtime={runtime.name}: an evaluation reads every row, and one host of several "
                "sees its own alone; evaluate on one host"
            )
        check_same_start(
            runtime,
            self.launch,
            self.config,
            step=len(self.folder.results),
            revision=self.inputs.revision,
            folder=self.folder.path,
            weights=self._fingerprint,
        )
        self.folder.accept({"precision": runtime.precision})
        device, before = runtime.describe(), self.folder.identity.get("device")
        if self.folder.results and device not in str(before):
            device = f"{before}, then {device}"
        self.folder.note({"device": device})
        place(self.weights.model, runtime)
        done = len(self.folder.results)
        say(f"device:  {runtime.describe()}")
        say(f"weights: {self.weights.origin}")
        say(f"data:    {self.inputs.describe()}, split {self.split}")
        say(f"rows:    {self.inputs.num_val_rows:,}, {len(self.wanted):,} of them captioned")
        say(f"results: {self.folder.path}")
        if done:
            say(f"resumed after row {done:,}")

    def _score_rows(self, runtime: Runtime, loader: Loader, first_batch: int) -> bool:
        several, num_rows = runtime.num_processes > 1, self.inputs.num_val_rows
        first_row = first_batch * self.config.data.batch_size
        stop = StopRequest(
            echo_s=ECHO_OF_A_SIGNAL_S if several else 0.0,
            safe_step=lambda: len(self.folder.results),
            unit="row",
        )
        shown = self.config.logger.progress
        progress = Progress(num_rows, first_row, shown=shown, unit="row")
        scoring = self._scoring_pass(runtime, first_row)
        scorer = RowScorer(
            runtime,
            scoring,
            num_rows=num_rows,
            worst=self._worst_rows(first_row),
            is_cut=self._is_cut,
        )
        started = kept = time.monotonic()

        def after_batch() -> tuple[bool, bool]:
            nonlocal kept
            now = time.monotonic()
            rate = (scoring.done - first_row) / (now - started)
            progress.advance(min(scoring.done, num_rows), f"{rate_text(rate)} images/s")
            stopping, due = decide(
                runtime, stop=stop.requested, save=now - kept >= _SECONDS_BETWEEN_RESULTS
            )
            kept = now if due else kept
            return stopping, due

        def batches() -> Iterator[tuple[Batch, Tensor, Tensor]]:
            given = runtime.batches(loader)
            # Processes that evaluate together stop at the same batch: none may break off alone.
            with suppress(Stopped):
                while True:
                    done = min(scoring.done, num_rows)
                    progress.doing(done, "waiting for rows")
                    with stop.interrupting(not several):
                        batch = next(given, None)
                    if batch is None:
                        return
                    progress.doing(done, "scoring the next ones")
                    yield batch

        try:
            with stop.listening(), progress.watched():
                for results, pictures in scorer.run(batches(), after_batch):
                    self._keep(results, pictures)
        finally:
            progress.close()
        self.folder.settle()
        self.folder.note({"graphs": runtime.num_graphs()})
        return runtime.gather(len(self.folder.results) == num_rows)[0]

    def _scoring_pass(self, runtime: Runtime, first_row: int) -> ScoringPass[Tensor]:
        return ScoringPass(
            self.weights.model,
            runtime,
            self.weights.tokenizer,
            purpose="evaluate",
            score=row_loss_sums,
            captioned=self.wanted,
            max_new_tokens=self.config.data.max_length,
            num_beams=self.config.evaluate.beams,
            first_row=first_row,
        )

    def _worst_rows(self, first_row: int) -> WorstRows:
        """The worst of the rows scored before; those behind `first_row` are scored again."""
        count = self.config.evaluate.worst
        # With some in reserve: in the end captions are read with the labels of all rows.
        worst = WorstRows(count and 2 * count + _RESERVE)
        for result in self.folder.results[:first_row]:
            worst.add(result)
        return worst

    def _is_cut(self, caption: str) -> bool:
        length = self.config.data.max_length
        return bool(encode_captions(self.weights.tokenizer, [caption], length)[1][0])

    def _keep(self, results: list[RowResult], pictures: dict[int, bytes]) -> None:
        """Append what is new: a batch that was half scored before is scored again as a whole."""
        known = len(self.folder.results)
        self.folder.append([one for one in results if one.row >= known], pictures)


def _vocabulary_hash(tokenizer: BertTokenizer) -> str:
    pieces = json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(pieces.encode()).hexdigest()


def _default_folder(weights: Pretrained, source: str | Path, config: Config) -> Path:
    """Beside the run of the weights, or in the working folder; its name says what is in it."""
    options = config.evaluate
    name = _plain(options.split or config.data.val_split)
    name += "" if options.rows is None else f"-{options.rows}-rows"
    name += "" if options.beams == 1 else f"-{options.beams}-beams"
    if weights.run is None:
        return Path("evaluation") / f"{_plain('-'.join(Path(source).parts[-2:]))}-{name}"
    beside = weights.run / "evaluation"
    if beside.is_symlink():
        raise ConfigError(
            f"{beside} is a link, and what is written there would go where it leads; give another "
            "folder (evaluate.out)"
        )
    return beside / f"step-{weights.step}-{name}"


def _config_and_columns(data: DataConfig) -> str | list[str]:
    """The configuration that is scored; results without columns are of the usual ones."""
    columns = Columns.of(data)
    return data.config if columns == USUAL else [data.config, *columns.required]


def _last_part(path: str | Path) -> str:
    """A path without the folders that it lies in: they are nobody's business."""
    return Path(path).resolve().name


def _plain(text: str) -> str:
    """A text as one part of a path."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")
