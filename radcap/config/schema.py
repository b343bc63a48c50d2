"""The typed schema of configs/.

The dataclasses name each option once: its type, its bounds, what it means, whether a run may go on
after it changed (`free`), what stands for it where an older run lacks it (`then`), and all else
that a part of radcap asks of an option, see `radcap.config.options.option`. The values themselves
live in the YAML files of configs/. `radcap.config.compose` puts the two together, and
`radcap.config.checks` judges the result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial

from radcap.config.options import declared, fields, free, option
from radcap.files.names import (
    fault_in_path,
    fault_in_repository,
    fault_in_revision,
    fault_in_split,
)

RUNTIMES = ("auto", "tpu", "cuda", "cpu", "xla_cpu")
PRECISIONS = ("fp32", "bf16")
MAX_POSITIONS = 2000  # the word pieces that the decoder knows a place for, as the model card's
GRAPHS = ("train", "eval", "generate")
_LONGEST = 1e12  # of a duration, in whatever unit
_MAX_BATCH_SIZE = 1_000_000
_TEXTS = ("str", "str | None")  # types, as written here


@dataclass(frozen=True)
class Duration:
    """A length of training: so many steps, examples, epochs, or minutes of wall time."""

    amount: float
    unit: str

    _PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*(steps?|examples?|epochs?|min(?:utes?)?)?")

    @classmethod
    def parse(cls, text: str, *, minutes: bool = False) -> Duration:
        """Read `100`, `100steps`, `5000examples`, `1.5epochs` or, where allowed, `10min`.

        Raises:
            ValueError: the text is none of these.
        """
        match = cls._PATTERN.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"'{text}' is not a duration such as {_duration_examples(minutes)}")
        word = match[2] or "steps"
        unit = {"st": "steps", "ex": "examples", "ep": "epochs", "mi": "minutes"}[word[:2]]
        amount = float(match[1])
        if amount > _LONGEST:
            raise ValueError(f"'{text[:40]}' is longer than {_LONGEST:g} {unit}")
        if unit == "minutes" and not minutes:
            raise ValueError(f"minutes make no sense here; say {_duration_examples(minutes)}")
        if unit in ("steps", "examples") and not amount.is_integer():
            raise ValueError(f"'{text}' is not a whole number of {unit}")
        return cls(amount, unit)


def _duration_examples(minutes: bool) -> str:
    return "100, 5000examples, 2epochs" + (" or 10min" if minutes else "")


@dataclass(frozen=True)
class RunConfig:
    """Where a run lives."""

    name: str = free("name of the run", is_filled=True)
    dir: str = free("the run folder itself", is_place=True, is_filled=True)
    mirror: str | None = free(
        "address that gets a copy of the run folder, such as gs://...", is_place=True
    )
    fresh: bool = free("move an earlier run of this folder aside and start anew")


_length = partial(free, ends_run=True, hparam="shown")


@dataclass(frozen=True)
class TrainerConfig:
    """How long to train and what to do on the way."""

    max_steps: int | None = _length("length of the run in steps", at_least=1, at_most=1e12)
    max_examples: int | None = _length("length of the run in rows", at_least=1, at_most=1e12)
    max_epochs: float | None = _length(
        "length of the run in passes over the data", above=0, at_most=1e6
    )
    accumulate: int = option(
        "micro-batches whose gradients make one step", at_least=1, at_most=65_536
    )
    log_every: int = free("steps between reads of the device", at_least=1)
    eval_every: str | None = free(
        "how often to validate; null for at the end", duration="steps", above=0
    )
    eval_rows: int | None = option(
        "validation rows to score; null for all", at_least=1, is_scored=True
    )
    save_every: str | None = free(
        "how often to save; null for at the end", duration="time", above=0
    )
    keep_checkpoints: int = free("newest checkpoints kept, beside the best", at_least=1)
    caption_rows: int = free("validation rows captioned for the slot accuracy", at_least=0)
    samples: int = free("validation images shown with their captions", at_least=0)
    profile_steps: list[int] | None = free("first and last step to profile", at_least=1)


# The same key in different units; one of them sets the length of a run.
RUN_LENGTHS = tuple(one.name for one, _ in fields(TrainerConfig) if one.metadata["ends_run"])


@dataclass(frozen=True)
class PhantomConfig:
    """Size of the embedded data set."""

    train_rows: int = option("training rows", at_least=1, at_most=1_000_000)
    val_rows: int = option("validation rows", at_least=1, at_most=1_000_000, is_scored=True)
    seed: int = option("seed of the drawing", at_least=0, at_most=2**32 - 1, is_scored=True)


@dataclass(frozen=True)
class DataConfig:
    """Which rows, in what order, in which form."""

    name: str = option("kind of source", choices=("hub", "phantom"), is_scored=True)
    path: str | None = option(
        "a local folder in the data set's form; wins over the data group",
        is_place=True,
        is_scored=True,
    )
    hub_id: str | None = option(
        "data set on the Hub, as owner/name", fault_in=fault_in_repository, is_scored=True
    )
    config: str = option("configuration of the data set", fault_in=fault_in_path, is_scored=True)
    train_split: str = option("split to train on", fault_in=fault_in_split)
    val_split: str = option("split to validate on", fault_in=fault_in_split, is_scored=True)
    revision: str | None = option(
        "commit of the Hub data set; null for the newest",
        fault_in=fault_in_revision,
        is_scored=True,
    )
    image_column: str = option(
        "column of the pictures", is_filled=True, is_scored=True, then="image"
    )
    caption_column: str | None = option(
        "column of the captions, plain text; null: the first answer in conversations",
        is_filled=True,
        is_scored=True,
        then=None,
    )
    batch_size: int = option(
        "rows in a global batch", at_least=1, at_most=_MAX_BATCH_SIZE, hparam="first"
    )
    workers: int | None = free(
        "loader processes of each training process; 0: none; null: as many as are of use",
        at_least=0,
        at_most=1024,
    )
    val_workers: int = free(
        "loader processes of a run's validations; 0: none", at_least=0, at_most=1024, then=2
    )
    prefetch: int = free("batches that each loader process reads ahead", at_least=1, at_most=1024)
    read_ahead_mb: float = free(
        "encoded megabytes read before they are needed, over all loader processes",
        above=0,
        at_most=1e6,
        then=500,
    )
    connections: int = free(
        "connections to the Hub, over all loader processes; at least one each",
        at_least=1,
        at_most=1024,
        then=16,
    )
    lanes: int = option(
        "places of the sorted split that every batch draws from", at_least=1, at_most=65_536
    )
    window_gb: float = option(
        "encoded bytes that rows are shuffled in, over all lanes", above=0, at_most=1e6
    )
    max_length: int = option(
        "target tokens of a caption, [SEP] included", at_least=2, at_most=1999, is_scored=True
    )
    max_pixels: int = option(
        "largest picture that is decoded, in pixels", at_least=1, at_most=500_000_000
    )
    hub_patience_s: float = free(
        "seconds without an answer of the Hub that end a run", above=0, at_most=1e9
    )
    hub_timeout_s: float = free(
        "seconds without a byte after which to ask again", above=0, at_most=1e9
    )
    cache: str | None = free("folder that keeps what was read; null keeps nothing", is_place=True)
    cache_gb: float = free("largest size of the cache", above=0, at_most=1e6)
    cache_decoded: bool = free("keep pixels in the cache instead of encoded pictures")
    local_copy: str | None = free(
        "folder to copy the Hub's data set into and read from", is_place=True
    )
    accept_revision: bool = free(
        "go on with another revision of the data than a run began with", is_of_machine=False
    )
    max_skipped_fraction: float = free(
        "share of bad rows that ends a run", at_least=0, at_most=1, is_of_machine=False
    )
    phantom: PhantomConfig = field(default_factory=PhantomConfig)


@dataclass(frozen=True)
class ModelConfig:
    """Shape and start of the captioner."""

    embed_dim: int = option(
        "width of tokens and memory", at_least=1, at_most=65_536, hparam="first"
    )
    num_layers: int = option("decoder layers", at_least=1, at_most=1024)
    num_heads: int = option("attention heads", at_least=1, at_most=65_536)
    dropout: float = option("dropout in the decoder", at_least=0, below=1)
    encoder_weights: str = option(
        "start of the image encoder: imagenet, none or a file", is_place=True
    )
    train_encoder: bool = option("false keeps the encoder's weights and statistics as they start")
    batch_norm_momentum: float | None = option(
        "share of a batch in the running statistics; null: 0.01, from random weights 0.1",
        above=0,
        at_most=1,
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam."""

    lr: float = option("learning rate", above=0, hparam="first")
    encoder_lr_scale: float = option(
        "multiple of lr for the image encoder, its projection and the graph layer", at_least=0
    )
    betas: list[float] = option("decay of the two moments", at_least=0, below=1)
    eps: float = option("added to the denominator", above=0)
    weight_decay: float = option("decoupled weight decay; 0 is plain Adam", at_least=0)
    clip_norm: float | None = option("largest gradient norm; null for no clipping", above=0)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the run, as a multiple of optimizer.lr."""

    name: str = option("shape after the warm-up", choices=("constant", "cosine"), hparam="first")
    warmup: str = option("length of the linear rise", duration="steps")
    final_fraction: float = option("multiple at the end of the run", at_least=0, at_most=1)


@dataclass(frozen=True)
class RuntimeConfig:
    """The device. None of these changes which rows a step sees."""

    name: str = free("device", choices=RUNTIMES)
    devices: int | None = free("how many; null for all there are", at_least=1)
    precision: str | None = free(
        "arithmetic of the forward and backward pass; null: the device's own",
        choices=PRECISIONS,
        hparam="shown",
    )
    threads: int | None = free("CPU threads; null for one a core", at_least=1, at_most=1024)
    prefetch: int = free("batches brought to an XLA device ahead of their use", at_least=1)
    compile: bool = free("compile the training step by torch.compile, on a GPU")


@dataclass(frozen=True)
class LoggerConfig:
    """What is written and shown. metrics.jsonl is always written."""

    tensorboard: bool = free("write TensorBoard files into the run folder")
    progress: bool | None = free("progress bar; null shows it on a terminal only")


@dataclass(frozen=True)
class DebugConfig:
    """Presets for finding a fault."""

    overfit: bool = option("train on the first batch over and over")
    limit: int | None = free(
        "stop after so many steps, score so many batches",
        at_least=1,
        ends_run=True,
        is_scored=True,
    )


@dataclass(frozen=True)
class PreflightConfig:
    """What `radcap.preflight` compiles, and for which TPU. Training has no use for these."""

    topology: str = free("the TPU: a name such as v3-8, or a raw topology such as v3:2x2")
    graph: str = free("the program to compile", choices=GRAPHS)
    batch_sizes: list[int] | None = free(
        "global batches to compile in turn", at_least=1, at_most=_MAX_BATCH_SIZE
    )
    out: str = free("file of the figures, JSON", is_place=True)
    compare: str | None = free(
        "file of an earlier preflight to show the change against", is_place=True
    )
    keep: str | None = free("folder that keeps the programs; null for none", is_place=True)


@dataclass(frozen=True)
class RehearseConfig:
    """What `radcap.rehearse` does to a run. Training has no use for these."""

    kill_at: list[int] = free("steps at which the run is killed", at_least=1)
    tolerance: float = free("largest relative difference of a loss", at_least=0)


@dataclass(frozen=True)
class EvaluateConfig:
    """What `radcap.evaluate` scores, and how. Training has no use for these."""

    weights: str | None = free(
        "run, checkpoint, exported folder, weights file or Hub id; null: those of the run",
        is_place=True,
    )
    split: str | None = free("split to score; null: data.val_split", fault_in=fault_in_split)
    rows: int | None = free("rows to score, from all over the split; null: all", at_least=1)
    captions: int | None = free("rows to caption, spread evenly; null: all", at_least=0)
    beams: int = free("captions kept in view by the search; 1 is greedy", at_least=1, at_most=64)
    worst: int = free("worst captions shown with their images", at_least=0)
    out: str | None = free("folder of the results; null: beside the weights' run", is_place=True)
    fresh: bool = free("move earlier results aside and start anew")


@dataclass(frozen=True)
class Config:
    """Everything a training run is told."""

    seed: int = option(
        "seed of weights, order and dropout", at_least=0, at_most=2**32 - 1, hparam="first"
    )
    run: RunConfig = field(default_factory=RunConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    debug: DebugConfig = field(default_factory=DebugConfig)
    preflight: PreflightConfig = field(default_factory=PreflightConfig)
    rehearse: RehearseConfig = field(default_factory=RehearseConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


def text_options(schema: type = Config) -> dict[str, bool]:
    """Full name of every option that holds a text -> whether null is a value of it.

    Without durations, which are numbers with a unit.
    """
    return {
        name: one.type != "str"
        for name, one in declared(schema).items()
        if one.type in _TEXTS and not one.metadata["duration"]
    }
