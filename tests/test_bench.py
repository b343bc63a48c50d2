"""scripts/bench.py at a small size: its output has its form, and both ways give the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import ROOT, environment, run_interpreter, run_python

NUMBER = r"[\d,.]+"


def bench(cache: Path, module: str, call: str) -> list[str]:
    """The lines that a benchmark prints."""
    program = f"import sys; sys.path.insert(0, 'scripts'); import {module}; {module}.{call}"
    done = run_python(program, cwd=ROOT, **environment(cache))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(rf"load {NUMBER} on \d+ cores", lines[-1])
    return lines[:-1]


def figure(lines: list[str], pattern: str) -> float:
    """The number in the one line that matches."""
    found = [match[1] for line in lines if (match := re.fullmatch(pattern, line))]
    assert len(found) == 1, (pattern, lines)
    return float(found[0].replace(",", ""))


def test_the_pictures_of_image_are_the_cards(cache: Path) -> None:
    lines = bench(cache, "bench_image", "bench_image(pictures=8, pairs=1)")
    assert figure(lines, rf"the pictures are ({NUMBER}) grey levels of 255 apart, .*") < 0.01
    assert figure(lines, rf"the pictures are .* apart, ({NUMBER}) at most") < 0.01
    assert figure(lines, rf" *{NUMBER} +{NUMBER} +({NUMBER})x   \({NUMBER} to {NUMBER}\)") > 0


def test_pipeline_counts_the_cores_that_feed_a_tpu(cache: Path) -> None:
    call = "bench_pipeline(rows=60, batch_size=16, pairs=1, floor=1e6, numbers=())"
    lines = bench(cache, "bench_pipeline", call)
    for name in ("decoding", "pipeline"):
        # Of a core by its own time, whatever else the machine has to do.
        a_core = figure(lines, rf"{name} +{NUMBER} +({NUMBER}) +{NUMBER}")
        processor_us = figure(lines, rf"{name} +{NUMBER} +{NUMBER} +({NUMBER})")
        assert a_core == pytest.approx(1e6 / processor_us, rel=0.01)
    cores = figure(lines, rf"a v3-8 .* wants 1,000,000 images/s: ({NUMBER}) such cores")
    assert cores == pytest.approx(1e6 / a_core, rel=0.05)


def test_memory_is_a_table_over_the_rows(cache: Path) -> None:
    lines = bench(cache, "bench_memory", "bench_memory(streamed=200, rows=60, batch_size=16)")
    table = [line for line in lines if re.match(r" *\d+ +\d+ s", line)]
    assert len(table) == 10
    seen = [int(line.split()[0]) for line in table]
    assert seen == sorted(seen) and seen[-1] >= 200
    for line in table:
        main, first, second, whole = (int(word) for word in line.split()[3:])
        assert main > 20 and min(first, second) > 1
        assert abs(main + first + second - whole) <= 3
    assert re.fullmatch(r"growth after the first part: [+-][\d.]+%", lines[-1])


def test_hub_reads_each_row_group_once(cache: Path) -> None:
    lines = bench(cache, "bench_hub", "bench_hub(rows=60, batch_size=16)")
    stored = figure(lines, rf"the row groups +({NUMBER}) bytes")
    fetched = figure(lines, rf"fetched from the Hub +({NUMBER}) bytes in \d+ requests")
    assert stored <= fetched <= 1.15 * stored
    assert figure(lines, rf"ratio +({NUMBER})x") == pytest.approx(fetched / stored, abs=1e-3)


@pytest.mark.slow
def test_wan_measures_what_its_formula_says(cache: Path) -> None:
    words = "times=1, seconds=1, workers=(2,), groups=('100 rows',), bandwidths=(20,)"
    lines = bench(cache, "bench_wan", f"bench_wan({words})")
    row = rf" *2 +{NUMBER} +{NUMBER} +{NUMBER} +{NUMBER}/%d +({NUMBER}) +({NUMBER}) .*"
    for connections in (96, 48):
        (found,) = [match for line in lines if (match := re.fullmatch(row % connections, line))]
        assert all(0.1 < float(share) < 1.2 for share in found.groups())
    cold = figure(lines, rf"open, cold +({NUMBER}) +{NUMBER} +{NUMBER}")
    assert cold == 1 + 2 * 65  # the listing, and of each file a redirect and its end
    assert figure(lines, rf"open, warm +({NUMBER}) +{NUMBER} +{NUMBER}") == 1
    assert figure(lines, rf"  20 MB/s a connection: .* in ({NUMBER}) minutes .*") > 0


def test_a_hosts_rate_is_that_of_what_is_slowest() -> None:
    program = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from bench_wan import IMAGE_S, Link, host_rate\n"
        "link = Link(0.05, 20e6)\n"  # a request of 20 MB takes 1.1 s
        "print(host_rate(8, 64, link, 20e6) * IMAGE_S, host_rate(8, 16, link, 20e6),\n"
        "      host_rate(8, 4, link, 20e6), host_rate(8, 64, link, 20e6, 1e-3))"
    )
    done = run_python(program, cwd=ROOT)
    assert [float(word) for word in done.stdout.split()] == pytest.approx(
        [8, 16 * 20e6 / 1.1 / 50e3, 8 * 20e6 / 1.1 / 50e3, 1000]
    )


@pytest.mark.slow
def test_startup_names_its_parts_and_every_command(cache: Path) -> None:
    words = "('+experiment=smoke', 'runtime=cpu')"
    lines = bench(cache, "bench_startup", f"bench_startup(repeats=1, words={words})")
    names = {line[:24].strip() for line in lines}
    assert {"data", "import", "model", "batch", "step", "first step"} <= names
    assert {"train", "evaluate", "caption", "preflight", "rehearse", "export", "doctor"} <= names
    helped = lines[lines.index("--help") + 1 :]
    assert all(float(line.split()[1]) > 0 for line in helped)


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    done = run_interpreter("scripts/bench.py", "nonsense", cwd=ROOT)
    assert done.returncode == 2
    assert "name one of tpu-step, train, generate, image, pipeline" in done.stderr
