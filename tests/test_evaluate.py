"""`python -m radcap.evaluate`: known answers, going on where it was, one result everywhere."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import programs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from command_line import environment, run_module, start_module, train
from evaluation.known import (
    GOOD,
    RIGHT,
    ROWS,
    SAID,
    expected_loss,
    looking_model,
    save,
    speaking_model,
    target_ids,
    write_rows,
)
from hub.stand_in import serving
from pycocoevalcap.cider.cider import Cider
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU
from transformers import BertTokenizer
from waiting import PATIENCE_S, wait_until

from radcap.config.compose import compose, to_yaml
from radcap.data.collate import VOCABULARY, load_tokenizer
from radcap.errors import ConfigError, RadcapError
from radcap.evaluate import main
from radcap.files.locks import lock_folder
from radcap.training.run.checkpoint import Checkpoint, save_checkpoint

needs_xla = pytest.mark.skipif(
    importlib.util.find_spec("torch_xla") is None, reason="torch_xla is not installed"
)


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return load_tokenizer()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data"), ROWS)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, tokenizer: BertTokenizer) -> Path:
    return save(speaking_model(tokenizer), tmp_path_factory.mktemp("model") / "says.safetensors")


@pytest.fixture
def words(data: Path, weights: Path, tmp_path: Path) -> list[str]:
    return [
        f"evaluate.weights={weights}",
        f"data.path={data}",
        f"evaluate.out={tmp_path / 'out'}",
        *("runtime=cpu", "runtime.threads=1", "data.workers=0", "data.batch_size=4"),
        "data.max_skipped_fraction=0.5",
    ]


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


def test_known_rows_give_known_figures(
    words: list[str], tmp_path: Path, tokenizer: BertTokenizer
) -> None:
    assert main(words) == 0
    found = results(tmp_path / "out")
    scores = {name: one["value"] for name, one in found["scores"].items()}
    references = [row[0] for row in GOOD]

    losses = [expected_loss(tokenizer, text) for text in references]
    tokens = sum(len(target_ids(tokenizer, text)) for text in references)
    assert scores["loss"] == pytest.approx(sum(losses) / tokens, rel=1e-4)
    assert scores["perplexity"] == pytest.approx(math.exp(sum(losses) / tokens), rel=1e-4)
    assert scores["loss_per_caption"] == pytest.approx(sum(losses) / 12, rel=1e-4)
    assert found["scores"]["loss"]["count"] == tokens
    assert (found["rows"], found["captions"], found["skipped"]) == (12, 12, {"no caption": 1})

    for slot, right in RIGHT.items():
        assert scores[slot] == right / 12
        assert found["scores"][slot]["count"] == 12
    assert found["slots"]["modality"] == {
        "mri": {"rows": 9, "right": 9, "said": {"mri": 9}},
        "ct": {"rows": 3, "right": 0, "said": {"mri": 3}},
    }
    assert found["slots"]["pathology"]["scoliosis"]["said"] == {"fracture": 2}
    assert found["slots"]["abnormal"]["normal"] == {
        "rows": 1,
        "right": 0,
        "said": {"abnormal": 1},
    }

    lower = [text.lower() for text in references]
    for order in (1, 2, 3, 4):
        bleu = BLEU(tokenize="none", max_ngram_order=order)
        expected = bleu.corpus_score([SAID] * 12, [lower]).score
        assert scores[f"bleu_{order}"] == pytest.approx(expected, rel=1e-9)
    rouge = RougeScorer(["rougeL"])
    lcs = [rouge.score(text, SAID)["rougeL"].fmeasure for text in references]
    assert scores["rouge_l"] == pytest.approx(sum(lcs) / 12, rel=1e-9)
    cider, _ = Cider().compute_score(
        {number: [text] for number, text in enumerate(lower)},
        {number: [SAID] for number in range(12)},
    )
    assert scores["cider_d"] == pytest.approx(cider, rel=1e-9)
    for one in found["scores"].values():
        low, high = one["interval"]
        assert low <= one["value"] <= high


def test_the_report_shows_the_worst_and_warns(
    words: list[str], data: Path, weights: Path, tmp_path: Path
) -> None:
    assert main([*words, "evaluate.worst=3"]) == 0
    out = tmp_path / "out"
    page = (out / "worst.html").read_text()
    assert page.count("<article>") == page.count("data:image/png;base64,") == 3
    assert page.count("scoliosis") >= 2  # both labels of these are wrong
    assert "http" not in page
    assert len(list((out / "pictures").iterdir())) == 3
    table = (out / "results.md").read_text()
    assert "| modality | 75.0% |" in table
    assert "| **`ct`** | 3 | 0 |" in table
    assert "0.7637" in table and "token count" not in table
    for text in (page, table, json.dumps(results(out))):
        assert "not for diagnosis" in text.lower()
        assert data.name in text and weights.name in text
        assert str(data.parent) not in text and str(weights.parent) not in text


def test_a_cut_evaluation_goes_on_and_ends_the_same(words: list[str], tmp_path: Path) -> None:
    assert main(words) == 0
    out = tmp_path / "out"
    whole = {name: (out / name).read_bytes() for name in ("rows.jsonl", "results.json")}
    lines = whole["rows.jsonl"].splitlines(keepends=True)
    # Five rows and a half: the sixth was being written when the process was killed.
    (out / "rows.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:20])
    (out / "results.json").unlink()
    assert main(words) == 0
    assert {name: (out / name).read_bytes() for name in whole} == whole


def test_a_loss_beyond_any_perplexity_is_infinity_in_every_file(
    words: list[str], tmp_path: Path, tokenizer: BertTokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    model = speaking_model(tokenizer, " ".join(["lung"] * 12))
    with torch.no_grad():
        model.fc_out.weight *= 300
    sure = save(model, tmp_path / "sure.safetensors")
    assert main([*words, f"evaluate.weights={sure}", "evaluate.captions=0"]) == 0
    text = (tmp_path / "out/results.json").read_text()
    found = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    scores = found["scores"]
    assert scores["loss"]["value"] > 1000
    assert scores["perplexity"] == {
        "value": "Infinity", "interval": ["Infinity", "Infinity"], "count": 113
    }  # fmt: skip
    said = capsys.readouterr().out
    assert re.search(r"^perplexity +infinity   infinity to infinity ", said, re.MULTILINE)
    table = (tmp_path / "out/results.md").read_text()
    assert "| perplexity | infinity | infinity to infinity | 113 |" in table


def test_an_evaluation_stopped_before_any_result_takes_other_settings(
    words: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert main([*words, "evaluate.captions=0"]) == 0
    (out / "rows.jsonl").write_bytes(b"")  # as where it is stopped while the device is opened
    for name in ("results.json", "results.md", "worst.html"):
        (out / name).unlink()
    assert main([*words, "evaluate.captions=2", "data.max_length=20", "evaluate.rows=8"]) == 0
    assert results(out)["captions"] == 2
    with pytest.raises(ConfigError, match=r"captions .*evaluate\.fresh=true"):
        main([*words, "evaluate.captions=0", "data.max_length=20", "evaluate.rows=8"])


def test_a_finished_evaluation_is_told_again_without_the_device(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    before = (tmp_path / "out" / "results.json").read_bytes()
    capsys.readouterr()
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "is finished" in said and "bleu_4" in said and "device:" not in said
    assert (tmp_path / "out" / "results.json").read_bytes() == before


def test_results_of_something_else_are_not_mixed(
    words: list[str], data: Path, tmp_path: Path, tokenizer: BertTokenizer
) -> None:
    for file in sorted(data.rglob("*.parquet")):  # with another column of texts
        content = pq.read_table(file)
        content = content.append_column("said", pa.array(["x"] * len(content)))
        (tmp_path / "set").mkdir(exist_ok=True)
        pq.write_table(content, tmp_path / "set" / file.name, row_group_size=4)
    words = [*words, f"data.path={tmp_path / 'set'}"]
    assert main(words) == 0
    other = save(speaking_model(tokenizer, "ct of the lung"), tmp_path / "other.safetensors")
    for word, named in (
        (f"evaluate.weights={other}", "weights"),
        ("evaluate.rows=6", "rows"),
        ("evaluate.captions=2", "captions"),
        ("data.max_length=20", "max_length"),
        ("data.caption_column=said", "config"),
    ):
        with pytest.raises(ConfigError, match=f"{named} .*evaluate.fresh=true"):
            main([*words, word])
    assert main([*words, f"evaluate.weights={other}", "evaluate.fresh=true"]) == 0
    assert (tmp_path / "out.old-1" / "results.json").is_file()
    assert {row["caption"] for row in rows(tmp_path / "out")} == {"ct of the lung", None}


def test_some_rows_and_some_captions_are_spread_over_the_split(
    words: list[str], tmp_path: Path
) -> None:
    assert main([*words, "evaluate.rows=8", "evaluate.captions=4"]) == 0
    scored = rows(tmp_path / "out")
    assert [row["row"] for row in scored] == list(range(8))
    assert len({row["id"] for row in scored}) == 8
    assert len({row["id"].split(":")[1] for row in scored}) == 2  # of both row groups
    captioned = [row["row"] for row in scored if row["caption"] is not None]
    assert set(captioned) <= {0, 2, 4, 6} and len(captioned) >= 3
    assert results(tmp_path / "out")["captions"] == len(captioned)


def test_heads_and_vocabulary_are_part_of_the_model(
    words: list[str], data: Path, tmp_path: Path
) -> None:
    """The weights are the same; what lies beside them tells how they are used."""
    folder = tmp_path / "model"
    folder.mkdir()
    save(looking_model(num_layers=1, num_heads=8), folder / "model.safetensors")
    sizes, vocabulary = folder / "config.json", VOCABULARY.read_text().split("\n")
    sizes.write_text(json.dumps({"num_heads": 8}))
    words = [*words, f"evaluate.weights={folder}", "evaluate.captions=0"]
    assert main(words) == 0
    sizes.write_text(json.dumps({"num_heads": 4}))
    with pytest.raises(ConfigError, match=r"num_heads \(8 -> 4\)"):
        main(words)
    sizes.write_text(json.dumps({"num_heads": 8, "graph_steps": 2}))
    with pytest.raises(ConfigError, match=r"graph_steps \(3 -> 2\)"):
        main(words)
    sizes.write_text(json.dumps({"num_heads": 8}))
    (folder / "vocab.txt").write_text("\n".join([*vocabulary[:-2], "qqknee", ""]))
    with pytest.raises(ConfigError, match="vocabulary"):
        main(words)


def test_the_worst_are_the_same_after_a_cut(words: list[str], tmp_path: Path) -> None:
    """A batch that was half scored is scored again: its rows must not count twice."""
    wrong = ("ct scan of the hip displays nodule", "ct", "hip", "nodule")
    half = ("ct scan of the hip displays fracture", "ct", "hip", "fracture")
    good = (SAID, "mri", "knee", "fracture")
    data = write_rows(tmp_path / "few", [wrong, wrong, *[good] * 3, half, *[good] * 6])
    words = [*words, f"data.path={data}", "data.batch_size=16", "evaluate.worst=3"]
    assert main(words) == 0
    out = tmp_path / "out"
    whole = (out / "worst.html").read_bytes()
    assert sorted(file.name for file in (out / "pictures").iterdir()) == ["0.png", "1.png", "5.png"]
    lines = (out / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (out / "rows.jsonl").write_bytes(b"".join(lines[:3]))
    (out / "pictures" / "5.png").unlink()
    assert main(words) == 0
    assert (out / "worst.html").read_bytes() == whole


def test_captions_that_were_cut_are_told(words: list[str], tmp_path: Path) -> None:
    assert main([*words, "data.max_length=10"]) == 0  # "... scolio ##sis" are eleven pieces
    cut = [row["row"] for row in rows(tmp_path / "out") if row["cut"]]
    assert cut == [9, 10]
    assert results(tmp_path / "out")["cut"] == 2
    assert "2 captions of the data are longer than 10" in (tmp_path / "out/results.md").read_text()


def test_every_row_is_left_out_for_its_own_reason(words: list[str], tmp_path: Path) -> None:
    file = write_rows(tmp_path / "bad", ROWS) / "alignment" / "val-00000-of-00001.parquet"
    table = pq.read_table(file).to_pylist()
    table[10]["image"]["bytes"] = b"garbage"
    pq.write_table(pa.Table.from_pylist(table), file, row_group_size=7)
    for size in (16, 4):  # the last row, without a caption, in the same batch or another
        out = tmp_path / str(size)
        changes = (f"data.batch_size={size}", f"evaluate.out={out}", f"data.path={tmp_path}/bad")
        assert main([*words, *changes]) == 0
        assert results(out)["skipped"] == {"undecodable": 1, "no caption": 1}


def test_what_has_no_score_is_no_success(
    words: list[str], tmp_path: Path, tokenizer: BertTokenizer
) -> None:
    bad = write_rows(tmp_path / "bad", [None] * 5)
    with pytest.raises(RadcapError, match="no row of split val can be scored: 5 no caption"):
        main([*words, f"data.path={bad}", "data.max_skipped_fraction=1"])
    model = speaking_model(tokenizer)
    with torch.no_grad():
        model.fc_out.weight.fill_(3e38)  # finite itself; its products are not
    broken = save(model, tmp_path / "huge.safetensors")
    out = f"evaluate.out={tmp_path / 'other'}"
    with pytest.raises(RadcapError, match=r"row 0 .*the loss is (nan|inf)"):
        main([*words, out, f"evaluate.weights={broken}"])
    assert not (tmp_path / "other" / "results.json").exists()


def test_a_label_of_another_row_is_read_in_the_page_too(words: list[str], tmp_path: Path) -> None:
    """The one caption states a finding that only another row's label knows."""
    other = ("mri scan of the knee leg displays fracture", "mri", "knee", "leg displays")
    data = write_rows(tmp_path / "few", [(SAID, "mri", "knee", "nodule"), other])
    assert main([*words, f"data.path={data}"]) == 0
    page = (tmp_path / "out" / "worst.html").read_text()
    assert results(tmp_path / "out")["slots"]["pathology"]["nodule"]["said"] == {"leg displays": 1}
    assert '<span class="wrong">leg displays</span>, is nodule' in page


def test_another_part_of_the_split_is_not_mixed_in(words: list[str]) -> None:
    assert main([*words, "evaluate.rows=8"]) == 0
    with pytest.raises(ConfigError, match="lanes"):
        main([*words, "evaluate.rows=8", "data.lanes=1"])


def test_without_captions_there_is_a_loss(words: list[str], tmp_path: Path) -> None:
    assert main([*words, "evaluate.captions=0"]) == 0
    assert set(results(tmp_path / "out")["scores"]) == {"loss", "perplexity", "loss_per_caption"}
    assert "<article>" not in (tmp_path / "out" / "worst.html").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["evaluate.weights=null"], "run=RUN, or evaluate.weights"),
        (["evaluate.weights=nowhere.bin"], "nowhere.bin: no such file"),
        (["run=nowhere"], "run=nowhere: no run folder"),
        (["run=a", "run=b"], "one run at a time"),
        (["evaluate.split=test"], "no split 'test'"),
        (["evaluate.split=../../esc"], r"evaluate.split='../../esc': no such name is possible"),
        (["data.val_split=/etc/x"], "data.val_split='/etc/x': no such name is possible"),
        (["evaluate.rows=0"], "evaluate.rows"),
        (["evaluate.weight=x"], "evaluate.weights"),
        (["evaluate.beams=0"], "evaluate.beams"),
        (["runs/default"], "runs/default: no such file or folder; a run is given as run=RUN"),
        (["data.config=instruct"], "data.config='instruct': questions and their answers"),
    ],
)
def test_wrong_words_are_refused_in_a_line(
    words: list[str], tmp_path: Path, changes: list[str], said: str
) -> None:
    with pytest.raises(RadcapError, match=said) as caught:
        main([*words, *changes])
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_results_beside_a_run_do_not_leave_it(words: list[str], tmp_path: Path) -> None:
    run, theirs = tmp_path / "run", tmp_path / "theirs"
    run.mkdir()
    theirs.mkdir()
    model = looking_model(num_layers=1, num_heads=8)
    best = {"best": {"step": 9, "val_loss": 1.0}}
    save_checkpoint(run / "checkpoints", Checkpoint(9, model.state_dict(), {}, {}, best))
    sizes = ["model=tiny", "model.embed_dim=16", "model.num_layers=1", "model.num_heads=8"]
    text = to_yaml(compose(sizes))
    assert "val_split: val\n" in text
    (run / "config.yaml").write_text(text.replace("val_split: val\n", "val_split: ../../x\n"))
    words = [f"run={run}", *words, "evaluate.weights=null", "evaluate.out=null"]
    with pytest.raises(ConfigError, match=r"data.val_split='../../x': no such name is possible"):
        main(words)
    (run / "evaluation").symlink_to(theirs)
    with pytest.raises(ConfigError, match="evaluation is a link"):
        main([*words, "data.val_split=val"])
    assert not list(theirs.iterdir())


def test_folders_that_are_not_ours_stay(words: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="not empty and holds no evaluation"):
        main(words)
    (out / ".lock").touch()  # as in a run folder
    with pytest.raises(ConfigError, match="not empty and holds no evaluation"):
        main([*words, "evaluate.fresh=true"])
    (out / "thesis.tex").unlink()
    with (
        lock_folder(out, ""),
        pytest.raises(RadcapError, match=f"in use by process {os.getpid()}"),
    ):
        main(words)


def evaluate(
    cwd: Path, cache: Path, *words: str, processes: int = 1
) -> subprocess.CompletedProcess[str]:
    return run_module("radcap.evaluate", cwd, cache, *words, processes=processes)


@pytest.mark.slow
def test_a_run_is_scored_as_its_own_validation_scored_it(tmp_path: Path, cache: Path) -> None:
    """A run of the smoke experiment: the same rows, the same figures, beside the run."""
    trained = train(tmp_path, cache, "+experiment=smoke", "runtime=cpu", "trainer.max_steps=4")
    assert trained.returncode == 0, trained.stderr
    done = evaluate(tmp_path, cache, "run=runs/smoke", "runtime=cpu", "evaluate.worst=2")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "runs" / "smoke" / "summary.json").read_text())
    out = tmp_path / "runs" / "smoke" / "evaluation" / "step-4-val"
    found = results(out)
    assert found["scores"]["loss"]["value"] == pytest.approx(summary["val_loss"], rel=1e-6)
    assert found["scores"]["loss"]["count"] == summary["val_tokens"]
    assert found["rows"] == summary["val_rows"] == 40
    assert found["floor"] == summary["floor"]
    assert "synthetic" in found["data"]["name"]
    assert str(out / "results.md").removeprefix(f"{tmp_path}/") in done.stdout


@pytest.mark.slow
def test_killed_and_stopped_it_ends_as_unbroken(
    tmp_path: Path, cache: Path, tokenizer: BertTokenizer
) -> None:
    """1,300 rows; SIGKILL after the first results, SIGTERM later, then to the end."""
    data = write_rows(tmp_path / "data", [GOOD[i % len(GOOD)] for i in range(1300)])
    weights = save(speaking_model(tokenizer), tmp_path / "says.safetensors")
    common = (f"evaluate.weights={weights}", f"data.path={data}", "runtime=cpu")
    common = (*common, "data.workers=1", "runtime.threads=1", "data.batch_size=16")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = evaluate(tmp_path, cache, *common, f"evaluate.out={whole}")
    assert done.returncode == 0, done.stderr
    words = (*common, f"evaluate.out={broken}")

    def interrupt(number: signal.Signals, when: Callable[[], bool]) -> tuple[int, str]:
        process = start_module("radcap.evaluate", tmp_path, cache, *words, stderr=subprocess.STDOUT)

        def reached() -> bool:
            assert process.poll() is None, process.communicate()
            return when()

        wait_until(reached, "the moment of the signal", every_s=0.01)
        process.send_signal(number)
        said, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, said

    def written() -> int:
        file = broken / "rows.jsonl"
        return file.read_text().count("\n") if file.exists() else 0

    status, _ = interrupt(signal.SIGKILL, lambda: written() >= 512)
    assert status == -signal.SIGKILL
    before = written()
    assert 512 <= before < 1300
    # The lock's line is written at the start, results 512 rows later: in between, it is at work.
    started = (broken / ".lock").stat().st_mtime_ns
    status, said = interrupt(
        signal.SIGTERM, lambda: (broken / ".lock").stat().st_mtime_ns > started and _listens(broken)
    )
    if status == 0:
        pytest.skip("this machine was done before the signal came")
    assert status == 75, said
    assert "the same command goes on" in said
    assert written() >= before
    done = evaluate(tmp_path, cache, *words)
    assert done.returncode == 0, done.stderr
    assert f"resumed after row {written():,}" not in done.stdout  # it went further
    assert "resumed after row" in done.stdout
    for name in ("rows.jsonl", "results.json", "worst.html"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
    assert len(list((broken / "pictures").iterdir())) == 50


def _listens(folder: Path) -> bool:
    """Whether the process that holds a folder has a handler of SIGTERM."""
    status = Path(f"/proc/{(folder / '.lock').read_text().strip()}/status")
    try:
        caught = next(line for line in status.read_text().splitlines() if line[:7] == "SigCgt:")
    except (OSError, StopIteration):
        return False
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.slow
@needs_xla
def test_thirteen_rows_are_scored_alike_everywhere(tmp_path: Path, cache: Path) -> None:
    weights = save(looking_model(num_layers=1, num_heads=8), tmp_path / "looks.safetensors")
    data = write_rows(tmp_path / "data", ROWS)
    found: dict[str, Path] = {}
    for name, processes, words in (
        ("cpu", 1, ("runtime=cpu", "data.batch_size=16")),
        ("small", 1, ("runtime=cpu", "data.batch_size=4")),
        ("processes", 2, ("runtime=cpu", "runtime.threads=1", "data.batch_size=4")),
        ("one", 1, ("runtime=xla_cpu", "runtime.devices=1", "data.batch_size=13")),
        ("eight", 1, ("runtime=xla_cpu", "runtime.devices=8", "data.batch_size=8")),
    ):
        out = tmp_path / name
        done = evaluate(
            tmp_path,
            cache,
            *(f"evaluate.weights={weights}", f"data.path={data}", f"evaluate.out={out}"),
            *("data.workers=0", "data.max_skipped_fraction=0.5", *words),
            processes=processes,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("report:") == 1  # one speaks for all
        found[name] = out
    expected = rows(found["cpu"])
    assert len(expected) == 13
    assert len({row["caption"] for row in expected}) > 4
    for name, out in found.items():
        scored = rows(out)
        for one, other in zip(scored, expected, strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-4), name
            assert one | {"loss": 0} == other | {"loss": 0}, name
        figures = {name: one["value"] for name, one in results(out)["scores"].items()}
        wanted = {n: one["value"] for n, one in results(found["cpu"])["scores"].items()}
        assert figures == pytest.approx(wanted, rel=1e-4)
        assert results(out)["slots"] == results(found["cpu"])["slots"]
    graphs = results(found["eight"])["settings"]["graphs"]
    assert graphs["evaluate"] == 1
    assert graphs["generate"] <= 2


@pytest.mark.slow
def test_the_commit_that_an_evaluation_began_with_is_kept(
    data: Path, weights: Path, tmp_path: Path
) -> None:
    """The data set's newest revision is another one when the evaluation goes on."""
    out = tmp_path / "out"
    words = (
        *("data=radimagenet_vqa", f"evaluate.weights={weights}", f"evaluate.out={out}"),
        *("runtime=cpu", "data.workers=0", "data.batch_size=4", "data.max_skipped_fraction=0.5"),
    )
    with serving(data) as hub:
        settings = environment(tmp_path) | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path)}
        del settings["HF_HUB_OFFLINE"], settings["http_proxy"]

        def run() -> subprocess.CompletedProcess[str]:
            return programs.run(["-m", "radcap.evaluate", *words], cwd=tmp_path, env=settings)

        first = run()
        assert first.returncode == 0, first.stderr
        whole, began_with = (out / "results.json").read_bytes(), hub.commit
        lines = (out / "rows.jsonl").read_bytes().splitlines(keepends=True)
        (out / "rows.jsonl").write_bytes(b"".join(lines[:6]))
        hub.publish(write_rows(tmp_path / "newer", ROWS[:4]))
        again = run()
    assert again.returncode == 0, again.stderr
    assert "resumed after row 6" in again.stdout
    assert (out / "results.json").read_bytes() == whole
    assert results(out)["data"]["revision"] == began_with
