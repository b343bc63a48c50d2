"""The report of an evaluation: results.json, results.md, worst.html, and the lines on the terminal.

What a figure is computed from is in `radcap.evaluation.scores`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from radcap.config.schema import Config
from radcap.errors import RadcapError
from radcap.evaluation.folder import EvaluationFolder
from radcap.evaluation.results import WorstRows
from radcap.evaluation.scores import Scores, score, to_json
from radcap.evaluation.worst_page import worst_page
from radcap.files.mappings import json_text
from radcap.files.markup import code, plain
from radcap.host.console import heartbeat, say
from radcap.scoring.bootstrap import LEVEL, RESAMPLES
from radcap.scoring.comparable import COMPARABLE
from radcap.scoring.perplexity import perplexity_text
from radcap.scoring.slots import NOTHING, SCORED
from radcap.scoring.text import bleu_signature
from radcap.serving.note import WARNING
from radcap.training.inputs import Inputs

WRITTEN_BY = "radcap.evaluate"
# Larger tables are told by their most frequent confusions.
_WHOLE_TABLE = 12
_CONFUSIONS_SHOWN = 20

_MEANING = {
    "loss": "nats a target token, lower is better",
    "perplexity": "exp of the loss, at least 1",
    "loss_per_caption": "nats a caption",
    "modality": "share of captions that state the right one",
    "location": "share of captions that state the right one",
    "pathology": "share of captions that state the right one",
    "abnormal": "share that say normal or abnormal rightly",
    "all": "share with the first three right",
    "bleu_1": "0 to 100, corpus BLEU up to single words",
    "bleu_2": "0 to 100, up to two words",
    "bleu_3": "0 to 100, up to three words",
    "bleu_4": "0 to 100, up to four words",
    "rouge_l": "0 to 1, F1 of the longest common subsequence",
    "cider_d": "0 to 10, mean",
}


@dataclass(frozen=True)
class Scored:
    """What was scored.

    Attributes:
        config: of the evaluation.
        inputs: the opened data.
        split: of it.
        origin: the weights in words for a report, which is shown to others.
        step: of the weights, where they say so.
    """

    config: Config
    inputs: Inputs
    split: str
    origin: str
    step: int | None


def write_report(folder: EvaluationFolder, scored: Scored) -> None:
    """Compute the figures of all rows, write the report and print its figures.

    Raises:
        RadcapError: no row is usable, or the folder cannot be written.
    """
    with heartbeat("computing the scores"):
        scores = score(folder.results)
    if not scores.rows:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in scores.skipped.items())
        raise RadcapError(f"no row of split {scored.split} can be scored: {reasons}")
    results = _results(folder.identity, scored, scores)
    worst = WorstRows(scored.config.evaluate.worst)
    for row in folder.results:
        worst.add(row, scores.said.get(row.row))
    folder.keep_pictures(row.row for row in worst.rows())
    page = worst_page(
        worst.rows(),
        scores.said,
        folder.read_picture,
        origin=results["weights"]["origin"],
        data=f"{results['data']['name']}, split {results['data']['split']}",
    )
    folder.write("worst.html", page)
    folder.write("results.md", markdown(results))
    folder.write("results.json", json_text(results, indent=1) + "\n")
    for line in figure_lines(results):
        say(line)
    say(f"report: {folder.path / 'results.md'}")
    say(f"worst captions with their images: {folder.path / 'worst.html'}")
    say(WARNING)


def _revision_is(config: Config) -> str:
    is_of_the_hub = config.data.path is None and config.data.name == "hub"
    return "commit" if is_of_the_hub else "fingerprint of the split's files"


def _results(facts: Mapping[str, Any], scored: Scored, scores: Scores) -> dict[str, Any]:
    """The contents of results.json."""
    inputs = scored.inputs
    floor, num_tokens = inputs.floor, scores.figures["loss"].count
    # It is that of whole captions, of all rows.
    is_theirs = floor is not None and (floor.rows, floor.tokens) == (scores.rows, num_tokens)
    return {
        "written_by": WRITTEN_BY,
        "not_for_diagnosis": WARNING,
        "weights": {
            "origin": scored.origin,
            "step": scored.step,
            "sha256": facts["weights"],
        },
        "data": {
            "name": facts["data"],
            "split": scored.split,
            "revision": inputs.revision,
            "revision_is": _revision_is(scored.config),
            "split_rows": inputs.num_split_rows,
        },
        "settings": {
            "device": facts.get("device"),
            "precision": facts.get("precision"),
            "graphs": facts.get("graphs"),
            "beams": facts["beams"],
            "max_length": facts["max_length"],
            "bleu": bleu_signature(),
            "bootstrap": {"resamples": RESAMPLES, "level": LEVEL},
        },
        "floor": asdict(floor) if floor is not None and is_theirs else None,
        **to_json(scores),
        "comparable": COMPARABLE,
    }


def markdown(results: Mapping[str, Any]) -> str:
    """results.md from the contents of results.json."""
    return "\n".join(_lines(results)) + "\n"


def figure_lines(results: Mapping[str, Any]) -> list[str]:
    """The figures as lines of text for a terminal."""
    return [
        f"{name:17} {_figure(name, one['value']):>9}   {_ends(name, one['interval']):21} "
        f"{_MEANING[name]}"
        for name, one in results["scores"].items()
        if one["value"] is not None
    ]


def _lines(results: Mapping[str, Any]) -> Iterator[str]:
    yield f"# Scores of {code(results['weights']['origin'])}\n"
    yield f"**{WARNING}**\n"
    yield from _facts(results)
    yield "\n## Scores\n"
    yield "| score | value | 95 % interval | mean over | what it is |"
    yield "| --- | ---: | --- | ---: | --- |"
    for name, one in results["scores"].items():
        if one["value"] is not None:
            yield (
                f"| {name} | {_figure(name, one['value'])} | {_ends(name, one['interval'])} | "
                f"{one['count']:,} | {_MEANING[name]} |"
            )
    floor = results.get("floor")
    if floor is not None:
        yield (
            f"\nThe lowest loss that these rows allow is known: {floor['nats_per_token']:.4f} nats "
            f"a token, {floor['nats_per_caption']:.3f} a caption."
        )
    yield "\n## What may be compared\n"
    for paragraph in COMPARABLE.values():
        yield f"- {paragraph}"
    for slot, classes in results["slots"].items():
        yield from _slot(slot, classes)
    if results["captions"]:
        yield (
            f"\nText scores: BLEU by sacrebleu ({results['settings']['bleu']}), ROUGE-L by "
            "rouge-score, CIDEr-D by radcap; all on lower-case words with punctuation apart."
        )


def _facts(results: Mapping[str, Any]) -> Iterator[str]:
    weights, data = results["weights"], results["data"]
    skipped = ", ".join(f"{n:,} {plain(reason)}" for reason, n in results["skipped"].items())
    yield "| | |"
    yield "| --- | --- |"
    yield f"| weights | {code(weights['origin'])}, SHA-256 {weights['sha256'][:16]} |"
    yield (
        f"| data | {code(data['name'])}, split {code(data['split'])}, {data['revision_is']} "
        f"{code(data['revision'])} |"
    )
    yield (
        f"| rows | {results['rows']:,} scored of {data['split_rows']:,}, "
        f"{results['captions']:,} captioned; {skipped or 'none'} left out |"
    )
    settings = results["settings"]
    if results["cut"]:
        yield (
            f"| cut | {results['cut']:,} captions of the data are longer than "
            f"{settings['max_length']} word pieces: their ends are not in the loss |"
        )
    search = "greedy" if settings["beams"] == 1 else f"{settings['beams']} beams"
    yield (
        f"| how | {plain(str(settings['device']))}; {search}, at most {settings['max_length']} "
        "word pieces |"
    )


def _slot(slot: str, classes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield f"\n## {slot.capitalize()}\n"
    yield f"| {slot} | rows | right | share | said instead |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for label, one in classes.items():
        wrong = [f"{code(said)} {n:,}" for said, n in one["said"].items() if said != label]
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        yield (
            f"| {code(label)} | {one['rows']:,} | {one['right']:,} | "
            f"{one['right'] / one['rows']:.1%} | {', '.join(wrong[:4])}{more} |"
        )
    said = {name for one in classes.values() for name in one["said"]}
    yield "\nConfusion: a line for what the row is, a column for what the caption states.\n"
    if len(said | set(classes)) <= _WHOLE_TABLE:
        yield from _whole_table(classes, said)
    else:
        yield from _frequent_confusions(classes)


def _whole_table(classes: Mapping[str, Mapping[str, Any]], said: set[str]) -> Iterator[str]:
    others = sorted(said - set(classes) - {NOTHING}) + [NOTHING] * (NOTHING in said)
    columns = [*classes, *others]
    yield f"| | {' | '.join(map(code, columns))} |"
    yield f"| --- |{' ---: |' * len(columns)}"
    for label, one in classes.items():
        counts = " | ".join(f"{one['said'].get(name, 0):,}" for name in columns)
        yield f"| **{code(label)}** | {counts} |"


def _frequent_confusions(classes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    pairs = [
        (number, label, said)
        for label, one in classes.items()
        for said, number in one["said"].items()
        if said != label
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    yield "| is | stated | captions |"
    yield "| --- | --- | ---: |"
    for number, label, said in pairs[:_CONFUSIONS_SHOWN]:
        yield f"| {code(label)} | {code(said)} | {number:,} |"
    if len(pairs) > _CONFUSIONS_SHOWN:
        yield f"\n{len(pairs) - _CONFUSIONS_SHOWN:,} rarer pairs stand in results.json."


def _figure(name: str, value: float | str) -> str:
    value = float(value)  # results.json has "Infinity" for it
    if name in SCORED:
        return f"{value:.1%}"
    if value >= 1000:
        return perplexity_text(value, ",.0f")
    return f"{value:.2f}" if name.startswith("bleu") else f"{value:.4f}"


def _ends(name: str, ends: list[float | str | None]) -> str:
    low, high = ends
    return "" if low is None or high is None else f"{_figure(name, low)} to {_figure(name, high)}"
