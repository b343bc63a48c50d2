"""scripts/tpu_vm.sh against a stand-in for gcloud that runs what is sent to the VM."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, run_python
from waiting import PATIENCE_S, wait_until

SCRIPT = ROOT / "scripts" / "tpu_vm.sh"
BASH = str(shutil.which("bash"))
SECRET = "hf_thisIsASecret0123456789"
SHUTDOWN = "--metadata=shutdown-script=pkill -TERM -f radcap.train; sleep 28"
MIRROR = "--mirror=gs://b/runs/epoch1"
WATCH = ("train", "--watch", "--poll=0.1", MIRROR, "+experiment=epoch1")
BILLED = [
    "the VM radcap is still running and billed; this ends that:",
    "  scripts/tpu_vm.sh delete --name radcap",
]
COMMANDS = ("create", "setup", "train", "status", "tensorboard", "logs", "delete")

# The VM's python: notes down its words; a training ends with the next status of a list.
PYTHON = """#!/usr/bin/env bash
echo "$*" >> "$STAND_IN_GCLOUD/python.log"
if [[ "$*" == "-m radcap.train "* ]]; then
  mkdir -p runs/epoch1
  step="$(head -n 1 "$STAND_IN_GCLOUD/steps" 2>/dev/null)" || true
  sed -i 1d "$STAND_IN_GCLOUD/steps" 2>/dev/null || true
  echo '{"step": '"${step:-7}"'}' > runs/epoch1/metrics.jsonl
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

    def environment(self) -> dict[str, str]:
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "RADCAP_"))}
        path = f"{self.home / 'bin'}:{variables['PATH']}"
        return variables | {
            "PATH": path, "STAND_IN_GCLOUD": str(self.home), "HOME": str(self.home)
        }  # fmt: skip

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BASH, SCRIPT, *words],
            env=self.environment() | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
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
        return [line for line in lines if line.startswith("-m radcap.train ")]


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
        "create", "radcap", "--accelerator-type=v3-8", "--version=tpu-ubuntu2204-base", SHUTDOWN,
        "--spot",
    ]  # fmt: skip
    assert on_demand == [
        "create", "mine", "--project=p", "--accelerator-type=v5litepod-8",
        "--version=v2-alpha-tpuv5-lite", SHUTDOWN,
    ]  # fmt: skip


def test_setup_brings_code_and_token_and_looks_at_the_machine(cloud: Cloud) -> None:
    cloud.run("create")
    vm = cloud.home / "vm"
    for left in ("radcap/removed_since.py", "runs/mine/config.yaml"):
        (vm / "radcap" / left).parent.mkdir(parents=True)
        (vm / "radcap" / left).touch()
    done = cloud.run("setup", HF_TOKEN=SECRET)
    assert done.returncode == 0, done.stderr
    assert not (vm / "radcap/radcap/removed_since.py").exists()
    assert (vm / "radcap/runs/mine/config.yaml").exists()
    assert not list((vm / "radcap").rglob("__pycache__"))
    assert (vm / "radcap/radcap/train.py").is_file()
    token = vm / ".cache/huggingface/token"
    assert token.read_text() == SECRET
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert (cloud.home / "python.log").read_text().splitlines()[-1] == (
        "-m radcap.doctor runtime=tpu"
    )
    assert not [path for path in (vm / "radcap").iterdir() if path.name == ".git"]


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
    wait_until((cloud.home / "vm/radcap-train.status").is_file, "the end of the run")
    assert cloud.trained() == [
        '-m radcap.train runtime=tpu data.path=it\'s "$HOME";x +experiment=epoch1'
    ]
    assert "--worker=all" in cloud.asked()[-1]
    status = cloud.run("status").stdout.splitlines()
    assert status[:2] + status[-1:] == ["VM radcap: READY", "run: 0", '{"step": 7}']


def test_a_run_in_progress_is_left_alone(cloud: Cloud) -> None:
    ready(cloud)
    (cloud.home / "hold").touch()
    cloud.run("train", "+experiment=epoch1")
    try:
        assert cloud.run("status").stdout.splitlines()[1] == "run: running"
        for command in (("train", "+experiment=epoch1"), ("setup",)):
            again = cloud.run(*command)
            assert "a run is in progress here" in again.stdout
            assert again.returncode == (1 if command[0] == "train" else 3)
            assert "training on" not in again.stdout
    finally:
        (cloud.home / "hold").unlink()
    assert len(cloud.trained()) == 1


def test_the_hosts_of_a_slice_fetch_the_run_first(cloud: Cloud) -> None:
    ready(cloud)
    words = ("train", "--mirror", "gs://b/runs/epoch1", "+experiment=epoch1")
    cloud.run(*words)
    assert ".restore" not in " ".join(cloud.asked()[-1])
    cloud.run(*words, "--type", "v3-32")
    assert ".restore" in " ".join(cloud.asked()[-1])
    fetched = (cloud.home / "python.log").read_text().splitlines()[-2:]
    assert [line for line in fetched if line.endswith(" gs://b/runs/epoch1 runs/epoch1")]
    # The fetch is a line of Python that works.
    (told,) = [word for word in cloud.asked()[-1] if word.startswith("--command=")]
    program = shlex.split(told.partition("python -c ")[2])[0]
    done = run_python(program, "memory://b/x", cloud.home / "there", cwd=ROOT)
    assert done.returncode == 0


def test_a_run_that_cannot_be_fetched_is_not_begun(cloud: Cloud) -> None:
    ready(cloud)
    python = cloud.home / "vm/radcap/.venv/bin/python"
    python.write_text('#!/usr/bin/env bash\n[[ "$1" != -c ]]\n')
    done = cloud.run("train", "--type=v3-32", MIRROR, "+experiment=epoch1")
    assert done.returncode == 1
    assert "could not be fetched" in done.stdout and "no training was started" in done.stderr
    assert not (cloud.home / "vm/radcap-train.pid").exists()


def test_a_preempted_vm_is_made_anew_and_the_run_goes_on(cloud: Cloud) -> None:
    ready(cloud)
    (cloud.home / "ends").write_text("75\n0\n")
    (cloud.home / "states").write_text("CREATING\nPREEMPTED\n")
    (cloud.home / "no_capacity").write_text("x\nx\n")
    done = cloud.run(*WATCH)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no HF_TOKEN in this terminal" in done.stdout.splitlines()[0]
    assert "the VM is CREATING" in done.stdout
    assert "the VM is gone (PREEMPTED): making it anew" in done.stdout
    assert done.stdout.count("no VM to be had") == 2
    assert done.stdout.splitlines()[-3:] == ["the run is finished", *BILLED]
    assert max(map(len, done.stdout.splitlines())) <= 100
    first, second = cloud.trained()
    assert first == second
    assert "run.name=epoch1 run.mirror=gs://b/runs/epoch1" in first
    verbs = [words[0] for words in cloud.asked()]
    assert verbs.count("delete") == 1
    assert verbs.count("create") == 4  # the first one, two refusals, the second one


def test_a_vm_deleted_elsewhere_is_not_made_anew(cloud: Cloud) -> None:
    ready(cloud)
    (cloud.home / "hold").touch()
    (cloud.home / "states").write_text("READY\nNONE\n")
    try:
        done = cloud.run(*WATCH)
    finally:
        (cloud.home / "hold").unlink()
    assert done.returncode == 1
    assert "there is no VM radcap any more" in done.stderr and "nothing is billed" in done.stdout
    assert [words[0] for words in cloud.asked()].count("create") == 1


def test_an_answer_that_only_looks_like_no_vm_is_none(cloud: Cloud) -> None:
    ready(cloud)
    real = (cloud.home / "bin/gcloud").read_text()
    says = 'print("ERROR: the command describe was not found", file=sys.stderr) or sys.exit(1)\n'
    once = f"if words[3] == 'describe' and first_line('lost'):\n    {says}\n"
    (cloud.home / "bin/gcloud").write_text(
        real.replace("sys.exit(main())", f"{once}sys.exit(main())")
    )
    (cloud.home / "lost").write_text("x\nx\n")
    done = cloud.run(*WATCH)
    assert done.returncode == 0, done.stderr
    assert "the VM is UNKNOWN" in done.stdout and "was not found" in done.stderr


def test_a_setup_that_keeps_failing_ends_the_watch_and_says_what_is_billed(cloud: Cloud) -> None:
    ready(cloud)
    (cloud.home / "states").write_text("PREEMPTED\n")
    (cloud.home / "no_copy").touch()
    (cloud.home / "scratch").mkdir()
    done = cloud.run(*WATCH, HF_TOKEN=SECRET, TMPDIR=str(cloud.home / "scratch"))
    assert done.returncode == 1
    assert done.stdout.count("setup failed") == 5 and "setup failed (5 of 5)" in done.stdout
    assert done.stderr.splitlines()[-1] == "tpu_vm.sh: setup failed again and again"
    assert done.stdout.splitlines()[-2:] == BILLED
    # No copy of the token, or of anything else, stays behind.
    assert list((cloud.home / "scratch").iterdir()) == []


def test_a_vm_that_does_not_start_ends_the_watch_with_a_word(cloud: Cloud) -> None:
    ready(cloud)
    (cloud.home / "hold").touch()
    (cloud.home / "states").write_text("STOPPED\n")
    try:
        done = cloud.run(*WATCH)
    finally:
        (cloud.home / "hold").unlink()
    assert done.returncode == 1
    assert "the VM is STOPPED" in done.stdout and "it did not start (1 of 5)" in done.stdout


def test_a_finished_run_may_take_its_vm_along(cloud: Cloud) -> None:
    ready(cloud)
    done = cloud.run(*WATCH, "--then-delete")
    assert done.returncode == 0, done.stderr
    assert cloud.asked()[-1] == ["delete", "radcap", "--quiet"]
    assert "billed" not in done.stdout + done.stderr


def test_a_watch_opened_again_leaves_the_run_and_ctrl_c_ends_it_with_a_word(cloud: Cloud) -> None:
    ready(cloud)
    (cloud.home / "hold").touch()
    cloud.run("train", MIRROR, "+experiment=epoch1")
    try:
        watch = subprocess.Popen(
            [BASH, SCRIPT, *WATCH],
            env=cloud.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert watch.stdout is not None
        begun = ""
        while "a run is in progress on radcap" not in begun:
            line = watch.stdout.readline()
            assert line, watch.communicate()
            begun += line
        watch.send_signal(signal.SIGINT)
        out, errors = watch.communicate(timeout=PATIENCE_S)
    finally:
        (cloud.home / "hold").unlink()
    assert "the watch is ended, the run is not" in errors
    assert (begun + out).splitlines()[-2:] == BILLED
    assert len(cloud.trained()) == 1


def test_a_restart_ends_what_is_left_of_the_run(cloud: Cloud) -> None:
    """A host of a slice that still trains would keep the others from beginning."""
    ready(cloud)
    (cloud.home / "hold").touch()
    cloud.run("train", MIRROR, "+experiment=epoch1")
    wait_until(cloud.trained, "the run")
    left = int((cloud.home / "vm/radcap-train.pid").read_text())
    watch = subprocess.Popen(
        [BASH, SCRIPT, *WATCH], env=cloud.environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert watch.stdout is not None
        while "looking after it" not in (line := watch.stdout.readline()):
            assert line, watch.communicate()
        (cloud.home / "vm/radcap-train.status").write_text("75\n")  # of another host
        wait_until(lambda: len(cloud.trained()) == 2, "the run's second start")
        left_over = Path(f"/proc/{left}/cmdline")  # empty where nobody has reaped it
        assert not left_over.exists() or left_over.read_text() == ""
    finally:
        (cloud.home / "hold").unlink()
    out, _ = watch.communicate(timeout=PATIENCE_S)
    assert watch.returncode == 0
    assert "the run stopped (75): starting it again" in out


@pytest.mark.slow
def test_a_run_that_gets_on_may_stop_as_often_as_it_likes(cloud: Cloud) -> None:
    ready(cloud)
    (cloud.home / "ends").write_text("75\n" * 7 + "0\n")
    (cloud.home / "steps").write_text("".join(f"{step}\n" for step in range(10, 90, 10)))
    done = cloud.run(*WATCH)
    assert done.returncode == 0, done.stderr
    assert len(cloud.trained()) == 8


def test_of_all_hosts_the_worst_word_counts() -> None:
    def worst(*answers: str) -> str:
        script = f"""
        source {ROOT}/scripts/tpu_vm_watch.sh
        state_script() {{ :; }}
        on_all() {{ printf '%s\\n' {" ".join(map(shlex.quote, answers))}; }}
        run_state"""
        return subprocess.run(
            [BASH, "-c", script], capture_output=True, text=True, check=True
        ).stdout.strip()

    assert worst("radcap: 0", "radcap: 0") == "0"
    assert worst("radcap: 0", "radcap: running", "radcap: 0") == "running"
    assert worst("radcap: running", "radcap: gone") == "gone"
    assert worst("radcap: 75", "radcap: running") == "75"
    assert worst("radcap: gone", "radcap: 1", "radcap: 75") == "1"
    # What is no answer of ours is none: a greeting, a warning, half a line.
    assert worst("Welcome", "12", "radcap: Killed", "radcap:") == "unknown"


def test_a_run_that_fails_ends_the_watch(cloud: Cloud) -> None:
    ready(cloud)
    (cloud.home / "ends").write_text("2\n")
    place = ("--zone=us-central1-a", "--project=p")
    done = cloud.run("train", "--watch", "--poll=0.1", "--mirror=gs://b/runs/x", "a=b", *place)
    assert done.returncode == 1
    there = f"{BILLED[1]} --zone us-central1-a --project p"
    assert "status 2" in done.stderr and done.stdout.splitlines()[-2:] == [BILLED[0], there]
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
        (("train", "--mirror=gs://b/runs/a b"), "not an address"),
        (("train", "--mirror=gs://b/runs/x;reboot"), "not an address"),
        (("train", "--poll=soon"), "not a number of seconds"),
        (("create", "--name=a b"), "letters, digits"),
        (("train", "--then-delete"), "needs --watch"),
        (("train", "--poll=0"), "more than 0"),
        (("train", "--poll", "0.000"), "more than 0"),
        (("train", "--poll=1e3"), "not a number of seconds"),
        (("create", "--type=v3-08"), "not a type"),
        (("create", "--type=v3-0"), "not a type"),
        (("create", "--type=v3-$(reboot)"), "not a type"),
        (("create", "--name=--all"), "a letter or digit first"),
        (("create", "--name=.."), "a letter or digit first"),
        (("create", "--name", ""), "name its value"),
        (("create", "--zone="), "name its value"),
        (("create", "--zone=us-central1-a;reboot"), "not a zone"),
        (("create", "--zone=--all"), "not a zone"),
        (("create", "--zone=us-central1-a\nreboot"), "not a zone"),
        (("create", "--project=a b"), "not a project"),
        (("create", "--version=$(reboot)"), "not an image"),
        (("delete", "--mirror=gs://b/$(reboot)"), "not an address"),
        (("train", "--mirror=gs://b/../x"), "not an address"),
        (("train", "--mirror=gs://b/runs/-x"), "not an address"),
        (("train", "--mirror=gs://b/runs/x."), "a dot"),
        (("train", "=1"), "not an override"),
        (("train", "a b=1"), "not an override"),
        (("train", "seed=1\n2"), "not an override"),
        (("train", "+experiment=epoch2"), "no such experiment; there are beam, epoch1,"),
        (("train", "+experiment="), "no such experiment"),
        (("train", "+experiment=../data/phantom"), "no such experiment"),
        (("train", "data=radimagnet"), "no such data"),
        (("de\nlete",), "no such command"),
        (("create", "--a\nb"), "no such option"),
        ((*WATCH, "run.fresh=true"), "anew at each restart"),
        ((*WATCH, "++run.name=other"), "names the run"),
        (("train", MIRROR, "run.mirror=gs://c/x"), "names the run"),
    ],
)
def test_wrong_arguments_are_refused_in_a_line(
    cloud: Cloud, words: tuple[str, ...], said: str
) -> None:
    done = cloud.run(*words)
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == "" and cloud.asked() == []


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("NAME", "--all", "--name --all: letters"),
        ("TYPE", "v3-08", "not a type"),
        ("ZONE", "us-central1-a;reboot", "not a zone"),
        ("PROJECT", "p q", "not a project"),
        ("VERSION", "$(reboot)", "not an image"),
        ("MIRROR", "gs://b/x\nreboot", "not an address"),
    ],
)
def test_what_stands_in_the_environment_has_its_form_too(
    cloud: Cloud, variable: str, value: str, said: str
) -> None:
    for words in (("status",), ("delete", "--dry-run")):
        done = cloud.run(*words, **{f"RADCAP_TPU_{variable}": value})
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr and done.stderr.count("\n") == 1
    assert cloud.asked() == []


def test_a_dry_run_says_that_no_zone_is_named(cloud: Cloud) -> None:
    done = cloud.run("delete", "--dry-run")
    assert done.returncode == 0 and done.stderr.startswith("no --zone: ")
    assert cloud.run("delete", "--dry-run", "--zone=europe-west4-b").stderr == ""


def test_without_a_home_there_is_no_login(cloud: Cloud) -> None:
    variables = {name: v for name, v in cloud.environment().items() if name != "HOME"}
    done = subprocess.run(
        [BASH, SCRIPT, "setup", "--dry-run", "--zone=us-central1-a"],
        env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "no HF_TOKEN here" in done.stdout


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
