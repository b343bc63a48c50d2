"""Which process this is, and what is refused before any device is opened."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import PATIENCE_S
from watched import watch

from radcap.config.schema import RuntimeConfig
from radcap.errors import ConfigError, RadcapError
from radcap.runtime.launch import Launch, check_batch_size, find_launch
from radcap.runtime.tpu import tpu_hosts


def config(name: str, devices: int | None = None, *, compile: bool = False) -> RuntimeConfig:
    return RuntimeConfig(
        name=name,
        devices=devices,
        precision="fp32",
        threads=None,
        prefetch=2,
        compile=compile,
    )


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (
        *("WORLD_SIZE", "RANK", "PJRT_DEVICE", "CPU_NUM_DEVICES", "TF_CPP_MIN_LOG_LEVEL"),
        *("TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID", "CLOUD_TPU_TASK_ID"),
    ):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


def test_one_process_is_the_first(environment: pytest.MonkeyPatch) -> None:
    assert find_launch(config("cpu")) == Launch(0, 1)
    assert find_launch(config("cpu")).is_first


def test_torchruns_processes_know_their_number(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("WORLD_SIZE", "4")
    environment.setenv("RANK", "3")
    assert find_launch(config("cpu")) == Launch(3, 4)
    assert not find_launch(config("cuda")).is_first
    with pytest.raises(ConfigError, match="torchrun started 4; start radcap without it"):
        find_launch(config("xla_cpu"))


@pytest.mark.parametrize("name", ["cpu", "xla_cpu"])
def test_only_a_gpus_step_is_compiled_by_torch(environment: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(ConfigError, match=f"runtime={name} takes runtime.compile=false"):
        find_launch(config(name, compile=True))


def test_a_gpus_step_is_not_compiled_without_a_compiler(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PATH", "")
    environment.delenv("CC", raising=False)
    with pytest.raises(ConfigError, match="no C compiler here; apt install gcc"):
        find_launch(config("cuda", compile=True))


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": ""}])
def test_an_environment_that_torchrun_would_not_make_is_named(
    environment: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    with pytest.raises(ConfigError, match="which torchrun would not; unset WORLD_SIZE"):
        find_launch(config("cpu"))


@pytest.fixture
def metadata_server() -> Iterator[tuple[str, dict[str, str]]]:
    """Google's metadata server as far as it is asked: address and attributes."""
    attributes: dict[str, str] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/")
            known = name in attributes and self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(attributes.get(name, "").encode())

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", attributes
    server.shutdown()


def test_hosts_of_a_slice_are_told_by_the_metadata_server(
    environment: pytest.MonkeyPatch, metadata_server: tuple[str, dict[str, str]]
) -> None:
    environment.setattr("radcap.runtime.tpu._METADATA_TIMEOUT_S", PATIENCE_S)
    address, attributes = metadata_server
    assert tpu_hosts(address) == (0, 1)
    attributes["agent-worker-number"] = "2"
    attributes["worker-network-endpoints"] = "a:1:10.0.0.1,b:1:10.0.0.2,c:1:10.0.0.3,d:1:10.0.0.4"
    assert tpu_hosts(address) == (2, 4)
    environment.setenv("http_proxy", "http://127.0.0.1:9")
    assert tpu_hosts(address) == (2, 4)
    del attributes["agent-worker-number"]
    with pytest.raises(RadcapError, match="4 hosts, and nothing says which of them this is"):
        tpu_hosts(address)
    attributes["worker-network-endpoints"] = "a:1:10.0.0.1"
    assert tpu_hosts(address) == (0, 1)
    assert tpu_hosts("http://127.0.0.1:9") == (0, 1)


def test_hosts_of_a_slice_are_told_by_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TPU_WORKER_ID", "1")
    environment.setenv("TPU_WORKER_HOSTNAMES", "10.0.0.1,10.0.0.2")
    assert tpu_hosts("http://127.0.0.1:9") == (1, 2)
    environment.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    assert tpu_hosts("http://127.0.0.1:9") == (0, 1)


@pytest.mark.parametrize(
    ("batch_size", "devices", "accumulate", "says"),
    [
        (6, 8, 1, "data.batch_size=6 does not divide by 8 devices; 8 does"),
        (20, 8, 1, "data.batch_size=20 does not divide by 8 devices; 16 or 24 does"),
        (24, 8, 2, "by 8 devices times 2 micro-batches; 16 or 32 does"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused(
    batch_size: int, devices: int, accumulate: int, says: str
) -> None:
    check_batch_size(devices * accumulate, devices, accumulate)
    with pytest.raises(ConfigError, match=says):
        check_batch_size(batch_size, devices, accumulate)


@pytest.mark.parametrize(
    ("words", "variables", "status", "says"),
    [
        (["runtime=tpu"], {}, 1, "runtime=tpu"),
        (["runtime=xla_cpu"], {"PJRT_DEVICE": "nonsense"}, 2, "PJRT_DEVICE=nonsense; unset it"),
        (["runtime=xla_cpu"], {"PJRT_DEVICE": "TPU"}, 2, "PJRT_DEVICE=TPU; unset it"),
        (["runtime=xla_cpu", "runtime.devices=4"], {"CPU_NUM_DEVICES": "2"}, 2, "CPU_NUM_DEVICES"),
        (["runtime=cpu", "runtime.devices=2"], {}, 2, "torchrun --nproc-per-node=2"),
    ],
)
def test_a_wrong_runtime_is_told_in_one_line_before_torch_is_loaded(
    tmp_path: Path, words: list[str], variables: dict[str, str], status: int, says: str
) -> None:
    """By the real command, on a machine without a TPU."""
    variables = {**os.environ, "RADCAP_CACHE": str(tmp_path), **variables}
    words = ["-m", "radcap.train", "+experiment=smoke", *words]
    watched = watch(tmp_path, *words, variables=variables)
    done = watched.done
    assert done.returncode == status, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not watched.heavy and not watched.connections
    assert not (tmp_path / "runs").exists()
