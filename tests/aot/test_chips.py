from __future__ import annotations

import pytest

from radcap.aot.chips import SLICES, find_topology
from radcap.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "chips", "devices", "hbm_gib"),
    [
        ("v2-8", 4, 8, 8),
        ("v3-8", 4, 8, 16),
        ("v3-32", 16, 32, 16),
        ("v4-8", 4, 4, 32),
        ("v5e-4", 4, 4, 16),
        ("v5e-8", 8, 8, 16),
        ("v5p-8", 4, 4, 95),
        ("v6e-4", 4, 4, 32),
        ("v6e-8", 8, 8, 32),
        ("v3:4x8", 32, 64, 16),
    ],
)
def test_slices_have_the_devices_that_google_says(
    name: str, chips: int, devices: int, hbm_gib: int
) -> None:
    found = find_topology(name)
    assert (found.num_chips, found.num_devices) == (chips, devices)
    assert found.hbm_bytes == hbm_gib * 2**30


def test_a_slice_named_after_its_cores_has_so_many() -> None:
    for name in SLICES:
        if name[:3] not in ("v5e", "v6e"):  # these count chips, of one core each
            found = find_topology(name)
            assert found.num_chips * found.chip.cores == int(name.partition("-")[2])


@pytest.mark.parametrize("name", ["v9-8", "v3", "v3:", "v3:0x2", "v3:2x2x2x2", "", "3-8"])
def test_an_unknown_slice_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"preflight\.topology="):
        find_topology(name)
