"""The first and the last words of a run, and summary.json."""

from __future__ import annotations

import time
from dataclasses import asdict
from shlex import quote
from typing import Any

from radcap.host.console import printable, say, wrapped
from radcap.scoring.perplexity import perplexity, perplexity_text
from radcap.training.log.clock import duration_text
from radcap.training.state import Run
from radcap.training.validate import Validation


def announce(run: Run) -> None:
    """Say what is about to be trained, on what, from where."""
    inputs, data = run.inputs, run.config.data
    parameters = sum(p.numel() for p in run.model.parameters())
    say(f"device: {run.runtime.describe(training=True)}")
    say(f"model:  {parameters:,} parameters, encoder from {_encoder_origin(run)}")
    epochs = run.total_steps / inputs.steps_per_epoch
    say(
        f"run:    {run.folder.path}, {run.total_steps:,} steps of {data.batch_size} rows "
        f"({epochs:.2f} epochs of {inputs.steps_per_epoch:,} steps)"
    )
    whole, extra = divmod(run.total_steps, inputs.steps_per_epoch)
    if whole and extra:
        say(f"        the last {extra:,} steps begin epoch {whole + 1}")
    if run.config.schedule.name != "constant" and run.total_steps > run.schedule_steps:
        say(
            f"        the rate's curve ends at step {run.schedule_steps:,}, as this run began; "
            f"the steps after it train at {run.config.schedule.final_fraction:g} of optimizer.lr"
        )
    for note in inputs.notes:
        say(f"        {note}")
    if run.resumed_from is not None:
        say(f"resumed after step {run.resumed_from:,}")


def announce_first_step(run: Run, batch_s: float, trace_s: float, rest_s: float) -> None:
    """Say how long it took from the start of the process to the first step, and why.

    Args:
        batch_s: seconds of waiting for the first batch.
        trace_s: seconds of recording the first step, where it is compiled.
        rest_s: seconds of the rest of it.
    """
    run.first_step_s["batch"] = batch_s
    parts = {"trace": trace_s, "compile": rest_s}
    run.first_step_s |= parts if run.runtime.compiles else {"step": trace_s + rest_s}
    words = ", ".join(f"{name} {seconds:.1f}" for name, seconds in run.first_step_s.items())
    run.bar.note(f"first step after {sum(run.first_step_s.values()):.1f} s: {words}")


def announce_stop(run: Run) -> None:
    """Say where a stopped run goes on."""
    again = "the same command" + (" without run.fresh=true" if run.config.run.fresh else "")
    say(f"stopped after step {run.step}, saved; {again} goes on from there")


def _encoder_origin(run: Run) -> str:
    if run.resumed_from is not None:
        return "the checkpoint"
    source = run.config.model.encoder_weights
    return {"none": "random weights", "imagenet": "ImageNet weights"}.get(source, source)


def report_validation(run: Run, result: Validation) -> None:
    """Log a validation after `run.step`, and say what it gave: the last one is `conclude`'s."""
    record = {"step": run.step, "time": time.time(), **result.scores()}
    if run.log.validation(record, result.accuracies(), run.inputs.floor):
        run.log.samples(run.step, result.samples)
    if run.step < run.total_steps:
        run.bar.note(
            f"step {run.step}: validation loss {result.loss:.4f}, "
            f"perplexity {perplexity_text(result.perplexity)} over {result.rows} rows"
        )


def conclude(run: Run) -> None:
    """Write summary.json and print the final scores with captions beside their references."""
    run.folder.write_summary(summarize(run))
    result, health = run.validation, run.step_log.health
    assert result is not None, "a run ends with a validation"
    say(f"\ndone: {run.step:,} steps in {duration_text(run.clock.total())}")
    say(wrapped(health.words()))
    for number, sample in enumerate(result.samples, 1):
        say(f"caption {number}: {printable(sample.generated)}")
        say(f"reference: {printable(sample.reference)}")
    for line in _slot_lines(result):
        say(line)
    say(
        f"validation loss {result.loss:.4f} nats a token, "
        f"perplexity {perplexity_text(result.perplexity)}, {result.loss_per_caption:.3f} nats a "
        f"caption, over {result.rows} rows"
    )
    floor = run.inputs.floor
    if floor is not None and floor.rows == result.rows:
        say(
            f"the data set's floor:  {floor.nats_per_token:.4f} nats a token, perplexity "
            f"{perplexity_text(perplexity(floor.nats_per_token))}, {floor.nats_per_caption:.3f} "
            f"nats a caption: {result.loss_per_caption - floor.nats_per_caption:.3f} above it"
        )
    say(f"curves: tensorboard --logdir {quote(str(run.folder.path))}")


def _slot_lines(result: Validation) -> list[str]:
    """Which labels the captions state rightly, in words; nothing where no row has labels."""
    shares = [f"{name} {share:.1%}" for name, share in result.accuracies().items()]
    if not shares:
        return []
    captioned = max(score["count"] for score in result.slots.values())
    return [wrapped(f"captions of {captioned} validation images are right in: {', '.join(shares)}")]


def summarize(run: Run) -> dict[str, Any]:
    """The contents of summary.json."""
    result, health, last = run.validation, run.step_log.health, run.step_log.last
    counts = health.counts
    assert result is not None, "a run ends with a validation"
    return {
        "finished": run.step == run.total_steps,
        "steps": run.step,
        "epochs": run.step / run.inputs.steps_per_epoch,
        "train_loss": last["loss"] if last else None,
        **{f"val_{name}": value for name, value in result.scores().items()},
        "floor": None if run.inputs.floor is None else asdict(run.inputs.floor),
        "slots": result.slots,
        "best": run.best,
        "resumed_from": run.resumed_from,
        "train_graphs": run.runtime.num_graphs().get("train"),
        "graphs": run.runtime.num_graphs(),
        "device_reads": run.runtime.device_reads,
        "log_reads": run.runtime.log_reads,
        "images": counts["images"],
        "skipped": counts["skipped"],
        "truncated": counts["truncated"],
        "retries": counts["retries"],
        "data_health": health.report(),
        "first_step_s": run.first_step_s,
        "wall_s": run.clock.total(),
        "seconds": run.clock.seconds,
        "captions": [
            {"generated": sample.generated, "reference": sample.reference}
            for sample in result.samples
        ],
    }
