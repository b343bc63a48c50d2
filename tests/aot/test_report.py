from __future__ import annotations

from typing import Any

import pytest

from radcap.aot.report import change_lines


def test_the_change_names_what_cannot_be_compared_and_counts_the_rest() -> None:
    report: dict[str, Any] = {
        "programs": {"train": {"stablehlo_fingerprint": "a"}},
        "topology": "v5e-8",
        "graph": "train",
        "precision": "bf16",
        "fits": True,
        "batch_size": 336,
        "flops_per_image": 6e9,
        "bytes_per_image": 150e6,
        "memory": {"needed": 2 * 10**9},
        "collectives": {"all-reduce": {"count": 3}, "all-gather": {"count": 0}},
        "floor_ms": 10.0,
        "estimated_ms": None,
        "images_per_s": 33_600.0,
    }
    before = {**report, "topology": "v3-8", "fits": False, "bytes_per_image": 200e6}
    lines = list(change_lines(before, report))
    assert "  topology: v3-8 -> v5e-8" in lines
    assert any("bytes an image" in line and line.endswith("-25.0 %") for line in lines)
    assert any(line.split()[:4] == ["fits", "no", "->", "yes"] for line in lines)
    assert not any("estimate" in line for line in lines)
    assert max(map(len, lines)) <= 100
    assert "  train: the very same program" in lines
    # An earlier refusal has no figures.
    assert list(change_lines({"fits": False, "flops_per_image": None}, report))


@pytest.mark.parametrize("odd", [[], "x", 5, {"needed": []}, {"all-reduce": 5}, {"train": [1]}])
def test_an_earlier_report_may_hold_anything(odd: object) -> None:
    before = dict.fromkeys(
        ("programs", "memory", "collectives", "topology", "fits", "estimated_ms"), odd
    )
    report = {
        **{"topology": "v3-8", "graph": "train", "precision": "bf16", "memory": {"needed": 5}},
        "programs": {"train": {"stablehlo_fingerprint": "x"}},
    }
    assert all(len(line) < 200 for line in change_lines(before, report))
