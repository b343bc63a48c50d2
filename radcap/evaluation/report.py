"""From the rows of an evaluation to its report: results.json, results.md, worst.html."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from radcap.config import Config
from radcap.console import heartbeat, say
from radcap.errors import RadcapError
from radcap.evaluation.markdown import WARNING, figure_lines, markdown
from radcap.evaluation.page import worst_page
from radcap.evaluation.results import WorstRows
from radcap.evaluation.scores import Scores, score, to_json
from radcap.mappings import json_text
from radcap.scoring.bootstrap import LEVEL, RESAMPLES
from radcap.scoring.comparable import COMPARABLE
from radcap.scoring.text import bleu_signature

if TYPE_CHECKING:
    from radcap.evaluation.run import Evaluation

WRITTEN_BY = "radcap.evaluate"


def write_report(evaluation: Evaluation) -> None:
    """Compute the figures of all rows, write the report and print its figures.

    Raises:
        RadcapError: no row is usable, or the folder cannot be written.
    """
    folder = evaluation.folder
    with heartbeat("computing the scores"):
        scores = score(folder.results)
    if not scores.rows:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in scores.skipped.items())
        raise RadcapError(f"no row of split {evaluation.split} can be scored: {reasons}")
    results = _results(evaluation, scores)
    worst = WorstRows(evaluation.config.evaluate.worst)
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


def _results(evaluation: Evaluation, scores: Scores) -> dict[str, Any]:
    """The contents of results.json."""
    weights, inputs, facts = evaluation.weights, evaluation.inputs, evaluation.folder.identity
    floor, num_tokens = inputs.floor, scores.figures["loss"].count
    # It is that of whole captions, of all rows.
    is_theirs = floor is not None and (floor.rows, floor.tokens) == (scores.rows, num_tokens)
    return {
        "written_by": WRITTEN_BY,
        "not_for_diagnosis": WARNING,
        "weights": {
            "origin": evaluation.origin,
            "step": weights.step,
            "sha256": facts["weights"],
        },
        "data": {
            "name": facts["data"],
            "split": evaluation.split,
            "revision": inputs.revision,
            "revision_is": _revision_is(evaluation.config),
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
