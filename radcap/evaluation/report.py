"""From the rows of an evaluation to its report: results.json, results.md, worst.html."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from radcap.config.schema import Config
from radcap.errors import RadcapError
from radcap.evaluation.folder import EvaluationFolder
from radcap.evaluation.markdown import WARNING, figure_lines, markdown
from radcap.evaluation.page import worst_page
from radcap.evaluation.results import WorstRows
from radcap.evaluation.scores import Scores, score, to_json
from radcap.files.mappings import json_text
from radcap.host.console import heartbeat, say
from radcap.scoring.bootstrap import LEVEL, RESAMPLES
from radcap.scoring.comparable import COMPARABLE
from radcap.scoring.text import bleu_signature
from radcap.training.inputs import Inputs

WRITTEN_BY = "radcap.evaluate"


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
