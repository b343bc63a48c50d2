"""What is shown of long work: one line an interval, nothing twice, and never long nothing."""

from __future__ import annotations

import re

import pytest
from waiting import wait_until

from radcap.data.collate import BatchCounts
from radcap.data.hub.download import Traffic
from radcap.host import console
from radcap.training.log.clock import rate_text
from radcap.training.log.health import DataHealth
from radcap.training.log.progress import Progress


def after(progress: Progress, seconds: float) -> Progress:
    """The same work, its last interval begun and its last line said so much earlier."""
    console._last_line -= seconds
    progress._last -= seconds
    return progress


def test_an_interval_has_one_line_and_tells_what_is_new(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress(40, 0, shown=False)
    told = [
        [],
        ["1,600 retries", "compute-bound"],
        ["1,600 retries", "compute-bound"],
        ["1,601 retries", "input-bound by the network"],
        ["1,601 retries", "compute-bound"],
    ]
    for number, facts in enumerate(told, 1):
        after(progress, 20.0).advance(5 * number, "loss 7, 3.5 images/s", facts)
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"\d+ s left", "_ s left", line) for line in lines] == [
        "step 5/40: loss 7, 3.5 images/s, _ s left",
        "step 10/40: loss 7, 3.5 images/s, _ s left; 1,600 retries, compute-bound",
        "step 15/40: loss 7, 3.5 images/s, _ s left",
        "step 20/40: loss 7, 3.5 images/s, _ s left; 1,601 retries, input-bound by the network",
        "step 25/40: loss 7, 3.5 images/s, _ s left; compute-bound",
    ]


@pytest.mark.parametrize(
    ("interval_s", "intervals_a_line"), [(0.5, 17), (2.0, 4), (4.0, 2), (8.5, 1), (60.0, 1)]
)
def test_lines_are_as_few_as_ten_seconds_without_one_allow(
    capsys: pytest.CaptureFixture[str], interval_s: float, intervals_a_line: int
) -> None:
    """The last interval to end before there would be none for ten seconds has the line."""
    progress = Progress(10_000, 0, shown=False)
    for number in range(1, 3 * intervals_a_line + 1):
        after(progress, interval_s).advance(10 * number, "loss 7")
    lines = capsys.readouterr().out.splitlines()
    told = [int(line.partition("/")[0].removeprefix("step ")) for line in lines]
    assert told == [10 * intervals_a_line * number for number in (1, 2, 3)]


def test_between_two_intervals_the_step_under_way_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_BEAT_S", 0.02)
    told = ""

    def has(line: str) -> bool:
        nonlocal told
        told += capsys.readouterr().out
        return f"{line}\n" in told

    progress = Progress(2_250, 12, shown=False, unit="step")
    with progress.watched():
        wait_until(lambda: has("step 12/2250"), "the begin")
        progress.doing(13, "waiting for its rows")
        wait_until(lambda: has("step 13/2250, waiting for its rows"), "the wait")
        progress.doing(13, "computing")
        wait_until(lambda: has("step 13/2250, computing"), "the step")
    progress.close()


def test_a_bar_takes_the_place_of_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress(10, 0, shown=True)
    after(progress, 20.0).advance(5, "loss 7.0000", ["2 masked"])
    progress.close()
    out, err = capsys.readouterr()
    assert out == "" and "5/10" in err and "loss 7.0000" in err


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (29_775.4, "29,775"),
        (124.4, "124"),
        (10.0, "10"),
        (9.96, "10"),
        (9.94, "9.9"),
        (3.0, "3.0"),
        (0.35, "0.3"),
        (0.1, "0.1"),
        (0.042, "0.04"),
        (0.0, "0.0"),
    ],
)
def test_rates_below_ten_have_a_decimal(rate: float, text: str) -> None:
    assert rate_text(rate) == text


def test_facts_name_what_is_not_as_it_should_be_and_who_waits() -> None:
    health = DataHealth(None)
    assert health.facts() == []
    health.add_time(train_s=100.0, wait_s=1.0, images=350)
    assert health.facts() == ["compute-bound"]
    assert health.words().endswith("compute-bound at 3.5 images/s")
    traffic = Traffic(requests=20, retries=1_600)
    counts = BatchCounts(rows=350, truncated=2, traffic=traffic, waited_s=80.0, worked_s=20.0)
    counts.skipped["undecodable"] = (3, "train-000007")
    health.add(counts)
    health.add_time(train_s=0.0, wait_s=60.0, images=0)
    assert health.facts() == [
        *("3 masked", "2 captions cut", "1,600 retries"),
        "input-bound by the network",
    ]
    assert "input-bound at 3.5 images/s, of 9.0 that the device could take" in health.words()
    assert health.words().endswith(
        "the network is slow (loaders waited for rows 80% of their time)"
    )
