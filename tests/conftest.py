"""How the tests run beside each other; the golden model of tests/golden/README.md; the cache.

Each test process keeps to one core, so that torch, XLA and all that it starts use one thread: two
that share their cores would wait for each other at every small step. A test marked `alone` measures
time, and runs while no other does.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import golden_formulas
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor

from radcap.host.console import moved
from radcap.model.captioner import ImageCaptioningModel

GOLDEN = Path(__file__).parent / "golden"
_NUM_COSTLIEST = 10


def _worker() -> str | None:
    """The name of this process among those that share the tests, None where it is the only one."""
    return os.environ.get("PYTEST_XDIST_WORKER")


def pytest_configure(config: pytest.Config) -> None:
    if (name := _worker()) is not None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(name.removeprefix("gw")) % len(cores)]})
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest come first, so that no process ends long after the others.

    Those that run alone come last, when few processes have to wait for them.
    """

    def place(item: pytest.Item) -> tuple[bool, float]:
        slow = item.get_closest_marker("slow")
        minutes = slow.kwargs.get("minutes", 1.0) if slow else 0.0
        return item.get_closest_marker("alone") is not None, -minutes

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Hold a lock that tests share, and that one marked `alone` has for itself."""
    if _worker() is None:
        return (yield)
    factory = item.config._tmp_path_factory  # type: ignore[attr-defined]
    with (factory.getbasetemp().parent / "alone.lock").open("a") as file:
        alone = item.get_closest_marker("alone") is not None
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The costliest tests, and the minutes of each folder, in seconds of one process."""
    by_test: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                by_test[report.nodeid] += report.duration
    if len(by_test) <= _NUM_COSTLIEST:
        return
    by_folder: Counter[str] = Counter()
    for name, seconds in by_test.items():
        by_folder[str(Path(name.partition("::")[0]).parent)] += seconds
    terminalreporter.section(f"the {_NUM_COSTLIEST} costliest tests, and each folder's minutes")
    for name, seconds in by_test.most_common(_NUM_COSTLIEST):
        terminalreporter.write_line(f"{seconds:7.1f} s    {name}")
    for folder, seconds in by_folder.most_common():
        terminalreporter.write_line(f"{seconds / 60:7.2f} min  {folder}")


# On a busy machine an example takes long, and so does drawing one.
settings.register_profile("radcap", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("radcap")

# A shell lets what it starts in the background ignore Ctrl-C, and so would what a test starts.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def heard() -> None:
    """Silence begins with the test: what it calls gives its signs of life no sooner."""
    moved()


@pytest.fixture
def golden_model() -> ImageCaptioningModel:
    """The golden model in float64, evaluation mode, no dropout."""
    model = ImageCaptioningModel(211, embed_dim=32, num_layers=2, num_heads=4, dropout=0.0)
    model.double()
    golden_formulas.fill(model)
    return model.eval()


@pytest.fixture(scope="session")
def golden_images() -> Tensor:
    return golden_formulas.images()


@pytest.fixture(scope="session")
def golden_tokens() -> Tensor:
    return golden_formulas.tokens()


@pytest.fixture(scope="session")
def golden_answers() -> dict[str, Tensor]:
    with np.load(GOLDEN / "card_tiny.npz") as answers:
        return {name: torch.from_numpy(np.asarray(answers[name])) for name in answers}


@pytest.fixture(scope="session")
def card_shapes() -> dict[str, Any]:
    return json.loads((GOLDEN / "card_state_dict_shapes.json").read_text())


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Addresses that this process tries to connect to from now on."""
    tried: list[Any] = []

    class Noting(socket.socket):
        def connect(self, address: Any) -> None:
            tried.append(address)
            super().connect(address)

    monkeypatch.setattr(socket, "socket", Noting)
    return tried


@pytest.fixture
def hangups() -> Iterator[None]:
    """SIGHUP has its usual effect, which `nohup` takes from all that it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what all test processes use; who writes there first takes a lock."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if _worker() else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def cache(shared: Path) -> Path:
    """One phantom data set for all runs of the command."""
    return shared / "cache"
