"""Compiled graphs are told apart by purpose, and a late training graph is told at once."""

from __future__ import annotations

import pytest

from radcap.runtime.graphs import GraphWatch


class Compiler:
    """Counts like torch_xla does: over the whole process."""

    total = 3

    def __call__(self) -> int:
        return self.total


def test_graphs_belong_to_the_purpose_they_were_compiled_in() -> None:
    compiler = Compiler()
    watch = GraphWatch(compiler)
    compiler.total += 1
    with watch.purpose("train", 1):
        compiler.total += 1
        watch.end_step("a batch")
    with watch.purpose("validate"):
        compiler.total += 1
        with watch.purpose("generate"):
            compiler.total += 2
        compiler.total += 1
        watch.end_step("a batch")
    watch.look()
    assert watch.counts == {"setup": 1, "train": 1, "validate": 2, "generate": 2}


@pytest.mark.parametrize("strict", [True, False])
def test_a_late_training_graph_is_told_once(
    strict: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RADCAP_STRICT_GRAPHS", "1" if strict else "0")
    compiler = Compiler()
    watch = GraphWatch(compiler)
    told = None
    for step, (graphs, batch) in enumerate([(2, "8 rows"), (0, "8 rows"), (1, "7 rows"), (0, "x")]):
        with watch.purpose("train", step):
            compiler.total += graphs
            try:
                watch.end_step(batch)
            except AssertionError as error:
                told = str(error)
    printed = capsys.readouterr().out.splitlines()
    message = (
        "step 2 compiled a new training graph (number 3): its batch was 7 rows, the first one "
        "8 rows"
    )
    assert (told, printed) == ((message, []) if strict else (None, [f"warning: {message}"]))
