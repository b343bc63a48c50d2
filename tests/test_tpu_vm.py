"""scripts/tpu_vm.sh against a stand-in for gcloud that runs what is sent to the VM."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "tpu_vm.sh"
BASH = str(shutil.which("bash"))
SECRET = "hf_thisIsASecret0123456789"
COMMANDS = ("create", "setup", "train", "status", "tensorboard", "logs", "delete")

# The VM's python: notes down its words; a training ends with the next status of a list.
PYTHON = """#!/usr/bin/env bash
echo "$*" >> "$STAND_IN_GCLOUD/python.log"
if [[ "$*" == *radcap.train* ]]; then
  mkdir -p runs/epoch1
  echo '{"step": 7}' > runs/epoch1/metrics.jsonl
  status="$(head -n 1 "$STAND_IN_GCLOUD/ends")"
  sed -i 1d "$STAND_IN_GCLOUD/ends"
  while [[ -e "$STAND_IN_GCLOUD/hold" ]]; do sleep 0.1; done
  exit "${status:-0}"
fi
"""


class Cloud:
    """A folder with the stand-in on its PATH."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "bin").mkdir()
        shutil.copy(ROOT / "tests/cloud/gcloud", home / "bin/gcloud")
        (home / "ends").touch()
        # In the place of uv, which would install gigabytes: it makes the VM's python.
        (home / "python").write_text(PYTHON)
        (home / "bin/uv").write_text(
            "#!/usr/bin/env bash\n"
            'mkdir -p .venv/bin && cp "$STAND_IN_GCLOUD/python" .venv/bin/python\n'
            "cp $STAND_IN_GCLOUD/bin/uv .venv/bin/uv; chmod +x .venv/bin/*\n"
        )
        (home / "bin/uv").chmod(0o755)

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "RADCAP_"))}
        path = f"{self.home / 'bin'}:{environment['PATH']}"
        environment |= {"PATH": path, "STAND_IN_GCLOUD": str(self.home), "HOME": str(self.home)}
        return subprocess.run(
            [BASH, SCRIPT, *words],
            env=environment | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )

    def asked(self) -> list[list[str]]:
        """What gcloud was asked, without its first three words."""
        path = self.home / "asked.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [json.loads(line)[3:] for line in lines]

    def trained(self) -> list[str]:
        """The words of every training on the VM."""
        path = self.home / "python.log"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [line for line in lines if "radcap.train" in line]


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_dry_run_prints_what_would_be_run_and_runs_nothing(cloud: Cloud, command: str) -> None:
    done = cloud.run(command, "--dry-run", "--zone", "us-central1-a", HF_TOKEN=SECRET)
    assert done.returncode == 0, done.stderr
    assert cloud.asked() == []
    commands = printed(done.stdout)
    assert commands
    assert all("--zone=us-central1-a" in words for words in commands)
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("create",),
        ("setup",),
        ("train", "+experiment=epoch1", "--mirror=gs://b/runs/epoch1", "data.path=it's $HOME;x"),
        ("status",),
        ("delete",),
    ],
)
def test_a_dry_run_is_what_is_run(cloud: Cloud, words: tuple[str, ...]) -> None:
    ready(cloud)
    (cloud.home / "asked.jsonl").unlink()
    told = cloud.run(*words, "--dry-run", HF_TOKEN=SECRET).stdout
    done = cloud.run(*words, HF_TOKEN=SECRET)
    assert done.returncode == 0, done.stderr
    planned = [without_scratch(words[4:]) for words in printed(told)]
    # `status` asks once more for the last line of the curve.
    assert planned == [without_scratch(words) for words in cloud.asked()][: len(planned)]


def printed(text: str) -> list[list[str]]:
    """The commands for gcloud that a dry run printed, cut into words by bash itself."""
    script = 'eval "words=($1)"; printf \'%s\\0\' "${words[@]}"'
    found = []
    for line in text.splitlines():
        if line.startswith("gcloud "):
            cut = ["bash", "-c", script, "_", line]
            words = subprocess.run(cut, capture_output=True, text=True, check=True).stdout
            found.append(words.split("\0")[:-1])
    return found


def without_scratch(words: list[str]) -> list[str]:
    """Words with the temporary folder's name, another each time, left out."""
    return [Path(word).name if word.startswith("/tmp") else word for word in words]


def test_create_is_spot_unless_told_otherwise(cloud: Cloud) -> None:
    cloud.run("create")
    cloud.run("create", "--on-demand", "--type=v5e-8", "--name=mine", "--project", "p")
    spot, on_demand = cloud.asked()
    assert spot == [
        "create", "radcap", "--accelerator-type=v3-8", "--version=tpu-ubuntu2204-base", "--spot"
    ]  # fmt: skip
    assert on_demand == [
        "create", "mine", "--project=p", "--accelerator-type=v5litepod-8",
        "--version=v2-alpha-tpuv5-lite",
    ]  # fmt: skip


def test_setup_brings_code_and_token_and_looks_at_the_machine(cloud: Cloud) -> None:
    cloud.run("create")
    done = cloud.run("setup", HF_TOKEN=SECRET)
    assert done.returncode == 0, done.stderr
    vm = cloud.home / "vm"
    assert (vm / "radcap/radcap/train.py").is_file()
    token = vm / ".cache/huggingface/token"
    assert token.read_text() == SECRET
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert (cloud.home / "python.log").read_text().splitlines()[-1] == (
        "-m radcap.doctor runtime=tpu"
    )
    assert not [path for path in (vm / "radcap").iterdir() if path.name in (".git", "runs")]


@pytest.mark.parametrize("tracing", [(), ("-x",)])
def test_the_token_is_in_no_argument_and_no_output(cloud: Cloud, tracing: tuple[str, ...]) -> None:
    cloud.run("create")
    environment = os.environ | {
        "PATH": f"{cloud.home / 'bin'}:{os.environ['PATH']}",
        "STAND_IN_GCLOUD": str(cloud.home),
        "HF_TOKEN": SECRET,
    }
    done = subprocess.run(
        ["bash", *tracing, SCRIPT, "setup"], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0
    assert (cloud.home / "vm/.cache/huggingface/token").read_text() == SECRET
    seen = [done.stdout, done.stderr, (cloud.home / "asked.jsonl").read_bytes()]
    assert not [text for text in seen if SECRET.encode() in text]


def test_a_login_of_hugging_faces_serves_too(cloud: Cloud) -> None:
    cloud.run("create")
    assert "no HF_TOKEN here" in cloud.run("setup").stdout
    login = cloud.home / ".cache/huggingface/token"
    login.parent.mkdir(parents=True)
    login.write_text(SECRET)
    assert cloud.run("setup").returncode == 0
    assert (cloud.home / "vm/.cache/huggingface/token").read_text() == SECRET


def ready(cloud: Cloud) -> None:
    assert cloud.run("create").returncode == 0
    assert cloud.run("setup").returncode == 0


def test_train_starts_on_all_hosts_and_hostile_words_arrive_whole(cloud: Cloud) -> None:
    ready(cloud)
    done = cloud.run("train", 'data.path=it\'s "$HOME";x', "+experiment=epoch1")
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 60
    while not (cloud.home / "vm/radcap-train.status").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert cloud.trained() == [
        '-m radcap.train runtime=tpu data.path=it\'s "$HOME";x +experiment=epoch1'
    ]
    assert "--worker=all" in cloud.asked()[-1]
    status = cloud.run("status").stdout
    assert status == 'VM radcap: READY\nrun: 0\n{"step": 7}\n'


def test_a_run_in_progress_is_left_alone(cloud: Cloud) -> None:
    ready(cloud)
    (cloud.home / "hold").touch()
    cloud.run("train", "+experiment=epoch1")
    try:
        assert cloud.run("status").stdout.splitlines()[1] == "run: running"
        assert "a run is in progress here" in cloud.run("train", "+experiment=epoch1").stdout
    finally:
        (cloud.home / "hold").unlink()
    assert len(cloud.trained()) == 1


def test_the_hosts_of_a_slice_fetch_the_run_first(cloud: Cloud) -> None:
    ready(cloud)
    words = ("train", "--mirror", "gs://b/runs/epoch1", "+experiment=epoch1")
    cloud.run(*words)
    assert "rsync" not in " ".join(cloud.asked()[-1])
    cloud.run(*words, "--type", "v3-32")
    # gcloud storage rsync --recursive, without its first three words
    assert ["gs://b/runs/epoch1", "runs/epoch1"] in cloud.asked()


def test_a_preempted_vm_is_made_anew_and_the_run_goes_on(cloud: Cloud) -> None:
    ready(cloud)
    (cloud.home / "ends").write_text("75\n0\n")
    (cloud.home / "states").write_text("READY\nPREEMPTED\n")
    (cloud.home / "no_capacity").write_text("x\nx\n")
    done = cloud.run(
        "train", "--watch", "--poll=0.1", "--mirror=gs://b/runs/epoch1", "+experiment=epoch1"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the VM is gone (PREEMPTED): making it anew" in done.stdout
    assert done.stdout.count("no VM to be had") == 2
    assert done.stdout.splitlines()[-1] == "the run is finished"
    first, second = cloud.trained()
    assert first == second
    assert "run.name=epoch1 run.mirror=gs://b/runs/epoch1" in first
    verbs = [words[0] for words in cloud.asked()]
    assert verbs.count("delete") == 1
    assert verbs.count("create") == 4  # the first one, two refusals, the second one


def test_a_run_that_fails_ends_the_watch(cloud: Cloud) -> None:
    ready(cloud)
    (cloud.home / "ends").write_text("2\n")
    done = cloud.run("train", "--watch", "--poll=0.1", "--mirror=gs://b/runs/x", "a=b")
    assert done.returncode == 1
    assert "status 2" in done.stderr
    assert len(cloud.trained()) == 1


def test_a_run_that_stops_again_and_again_ends_the_watch(cloud: Cloud) -> None:
    ready(cloud)
    (cloud.home / "ends").write_text("75\n" * 9)
    done = cloud.run("train", "--watch", "--poll=0.1", "--mirror=gs://b/runs/x", "a=b")
    assert done.returncode == 1 and "again and again" in done.stderr
    assert len(cloud.trained()) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a command"),
        (("launch",), "no such command"),
        (("create", "--zonee=x"), "no such option"),
        (("create", "--zone"), "name its value"),
        (("create", "--type=v3"), "not a type"),
        (("create", "setup"), "one command at a time"),
        (("create", "seed=1"), "only train takes overrides"),
        (("train", "--watch"), "needs --mirror"),
        (("train", "--mirror=/tmp/x"), "not an address"),
        (("train", "--poll=soon"), "not a number of seconds"),
    ],
)
def test_wrong_arguments_are_refused_in_a_line(
    cloud: Cloud, words: tuple[str, ...], said: str
) -> None:
    done = cloud.run(*words)
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert cloud.asked() == []


def test_without_gcloud_it_says_where_to_get_it(cloud: Cloud) -> None:
    (cloud.home / "empty").mkdir()  # a real gcloud must not be found either
    done = cloud.run("create", PATH=str(cloud.home / "empty"))
    assert done.returncode == 1 and "cloud.google.com/sdk" in done.stderr


def test_help_lists_every_command(cloud: Cloud) -> None:
    done = cloud.run("--help")
    assert done.returncode == 0
    assert not [command for command in COMMANDS if f"  {command} " not in done.stdout]
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_the_scripts_pass_shellcheck() -> None:
    linter = Path(sys.executable).with_name("shellcheck")
    scripts = sorted(str(path) for path in (ROOT / "scripts").glob("*.sh"))
    done = subprocess.run(
        [linter, "-x", "-P", "SCRIPTDIR", *scripts, ROOT / ".ci/run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
