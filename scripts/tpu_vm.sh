#!/usr/bin/env bash
# Train on a Cloud TPU VM: one chip board (v3-8) or a slice of several hosts, spot or on demand.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/tpu_vm.sh COMMAND [OPTION ...] [OVERRIDE ...]

commands:
  create        make the TPU VM and wait until it is ready
  setup         copy this checkout and the Hugging Face token there, install, look at the machine
  train         start training on all hosts; it goes on when this terminal is closed
  status        the VM's state, the run's state, its last step
  tensorboard   http://localhost:6006 shows the run's TensorBoard, until Ctrl-C
  logs          follow what the run says, until Ctrl-C
  delete        delete the VM; what is in --mirror stays

options (each may stand in the environment instead):
  --name NAME        RADCAP_TPU_NAME     the VM's name (default radcap)
  --type TYPE        RADCAP_TPU_TYPE     v3-8 (default), v3-32, v4-8, v5litepod-8, v6e-8, ...
  --zone ZONE        RADCAP_TPU_ZONE     else gcloud's own setting
  --project PROJECT  RADCAP_TPU_PROJECT  else gcloud's own setting
  --version VERSION  RADCAP_TPU_VERSION  the VM's image; by default the one for the type
  --mirror ADDRESS   RADCAP_TPU_MIRROR   gs://BUCKET/runs/NAME, keeps a copy of the run NAME
  --on-demand        create, train --watch: a VM that is not taken away; the default is spot
  --watch            train: stay, and when the VM is preempted make it anew and go on with the run
  --poll SECONDS     train --watch: how often to look (default 60)
  --dry-run          print the commands instead of running them
  -h, --help         print this and stop

The token is read from HF_TOKEN or Hugging Face's own file, and copied as a file that only the user
can read: it is on no command line and in no log.

exit status: 0 done   1 failed   2 wrong arguments

examples:
  scripts/tpu_vm.sh create --zone us-central1-a
  scripts/tpu_vm.sh setup --zone us-central1-a
  scripts/tpu_vm.sh train --zone us-central1-a --watch --mirror gs://BUCKET/runs/epoch1 \
    +experiment=epoch1
END
}

main() {
  read_arguments "$@"
  if [[ -z "$dry_run" ]] && ! command -v gcloud >/dev/null; then
    fail 1 "gcloud is not installed: https://cloud.google.com/sdk/docs/install; or use --dry-run"
  fi
  case "$command" in
    create) create ;;
    setup) setup ;;
    train)
      start_training
      [[ -z "$watch" ]] || keep_training
      ;;
    status) show_status ;;
    tensorboard) show_tensorboard ;;
    logs) on_first "tail -n 100 -F $log_file" ;;
    delete) tpu delete ;;
  esac
}

fail() {
  echo "tpu_vm.sh: $2" >&2
  exit "$1"
}

# Arguments ------------------------------------------------------------------------------------

name="${RADCAP_TPU_NAME:-radcap}"
type="${RADCAP_TPU_TYPE:-v3-8}"
zone="${RADCAP_TPU_ZONE:-}"
project="${RADCAP_TPU_PROJECT:-}"
version="${RADCAP_TPU_VERSION:-}"
mirror="${RADCAP_TPU_MIRROR:-}"
command="" spot=yes watch="" poll_s=60 dry_run=""
overrides=() place=() # read as ${x[@]+"${x[@]}"}: the bash of macOS calls an empty list unset

# On the VM, relative to the home folder.
folder=radcap
log_file=radcap-train.log
status_file=radcap-train.status
process_file=radcap-train.pid

read_arguments() {
  while (($#)); do
    case "$1" in
      -h | --help) usage && exit 0 ;;
      --on-demand) spot="" ;;
      --watch) watch=yes ;;
      --dry-run) dry_run=yes ;;
      --name | --type | --zone | --project | --version | --mirror | --poll)
        [[ $# -ge 2 && "$2" != -* ]] || fail 2 "$1: name its value"
        set_option "$1" "$2"
        shift
        ;;
      --name=* | --type=* | --zone=* | --project=* | --version=* | --mirror=* | --poll=*)
        set_option "${1%%=*}" "${1#*=}"
        ;;
      -*) fail 2 "$1: no such option; --help lists them" ;;
      *=*) overrides+=("$1") ;;
      create | setup | train | status | tensorboard | logs | delete)
        [[ -z "$command" ]] || fail 2 "$command and $1: one command at a time"
        command="$1"
        ;;
      *) fail 2 "$1: no such command; --help lists them" ;;
    esac
    shift
  done
  [[ -n "$command" ]] || fail 2 "name a command; --help lists them"
  [[ "$type" =~ ^v[0-9a-z]+-[0-9]+$ ]] || fail 2 "--type $type: not a type such as v3-8"
  [[ "$poll_s" =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail 2 "--poll $poll_s: not a number of seconds"
  [[ "$type" != v5e-* ]] || type="v5litepod-${type#v5e-}" # gcloud's name for it
  place=(${zone:+"--zone=$zone"} ${project:+"--project=$project"})
  if [[ ${#overrides[@]} -gt 0 && "$command" != train ]]; then
    fail 2 "${overrides[0]}: only train takes overrides"
  fi
  if [[ -n "$mirror" && ! "$mirror" =~ ^gs://[^/]+/.*[^/]$ ]]; then
    fail 2 "--mirror $mirror: not an address such as gs://BUCKET/runs/NAME"
  fi
  if [[ -n "$watch" && -z "$mirror" ]]; then
    fail 2 "--watch needs --mirror gs://BUCKET/runs/NAME: a preempted VM takes its disk with it"
  fi
}

set_option() {
  case "$1" in
    --name) name="$2" ;;
    --type) type="$2" ;;
    --zone) zone="$2" ;;
    --project) project="$2" ;;
    --version) version="$2" ;;
    --mirror) mirror="$2" ;;
    --poll) poll_s="$2" ;;
  esac
}

# Commands -------------------------------------------------------------------------------------

create() {
  tpu create "--accelerator-type=$type" "--version=${version:-$(image_of_type)}" ${spot:+--spot}
}

# The images that Google names for each type. Their Python may be too old: setup brings 3.11.
image_of_type() {
  case "$type" in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

setup() {
  scratch="$(mktemp -d)"
  trap 'rm -rf "$scratch"' EXIT
  run tar -czf "$scratch/radcap.tgz" -C "$(dirname "${BASH_SOURCE[0]}")/.." \
    pyproject.toml README.md LICENSE NOTICE configs radcap scripts || return
  copy "$scratch/radcap.tgz" radcap.tgz || return
  send_token || return
  on_all "set -e
mkdir -p $folder && tar -xzf radcap.tgz -C $folder && cd $folder
export PATH=\"\$HOME/.local/bin:\$PATH\"
if [ ! -x .venv/bin/python ]; then
  command -v uv >/dev/null || python3 -m pip install --quiet --user uv
  uv venv --quiet --seed --python 3.11 .venv
fi
source scripts/setup.sh && install_radcap tpu,gcs
.venv/bin/python -m radcap.doctor runtime=tpu" || return
  rm -rf "$scratch"
}

# As a file of mode 600, where Hugging Face's own login would put it.
send_token() {
  { local tracing="$-" && set +x; } 2>/dev/null # bash -x would print the token
  local file="$scratch/token" login="${HF_HOME:-$HOME/.cache/huggingface}/token" there=""
  [[ -z "${HF_TOKEN:-}" && ! -s "$login" ]] || there=yes
  if [[ -n "$there" && -z "$dry_run" ]]; then
    (umask 077 && if [[ -n "${HF_TOKEN:-}" ]]; then printf '%s' "$HF_TOKEN"; else cat "$login"; fi \
      >"$file")
  fi
  [[ "$tracing" != *x* ]] || set -x
  if [[ -z "$there" ]]; then
    echo "no HF_TOKEN here: the gated data set will be refused; data=phantom works without"
    return
  fi
  on_all "mkdir -p -m 700 .cache/huggingface" && copy "$file" .cache/huggingface/token
}

start_training() {
  local words=(${overrides[@]+"${overrides[@]}"}) fetch="" line
  if [[ -n "$mirror" ]]; then
    local name_of_run="${mirror##*/}"
    words+=("run.name=$name_of_run" "run.mirror=$mirror")
    if is_slice; then
      # Its hosts have a disk each; the trainer itself restores the first one's.
      fetch="mkdir -p runs/$name_of_run
gcloud storage rsync --recursive $(printf %q "$mirror") runs/$name_of_run || true
"
    fi
  elif [[ -n "$spot" ]]; then
    echo "without --mirror, a spot VM that is preempted takes the run with it"
  fi
  line="$(printf '%q ' .venv/bin/python -m radcap.train runtime=tpu ${words[@]+"${words[@]}"})"
  line="${line% }; echo \$? >../$status_file"
  on_all "if $(is_training); then echo 'a run is in progress here'; exit; fi
cd $folder || exit
${fetch}rm -f ../$status_file
nohup setsid bash -c $(printf %q "$line") >>../$log_file 2>&1 </dev/null &
echo \$! >../$process_file
sleep 1" || return
  [[ -n "$dry_run" ]] || echo "training on $name; scripts/tpu_vm.sh logs follows it"
}

# Looks at the VM and the run until the run has ended; a VM that was taken away is made anew.
keep_training() {
  local state bare="" restarts=0
  if [[ -n "$dry_run" ]]; then
    echo "# every $poll_s s; where it says PREEMPTED: delete, create, setup and train as above"
    tpu describe "--format=value(state)"
    return
  fi
  while true; do
    state="$(vm_state)"
    case "$state" in
      READY)
        if [[ -z "$bare" ]]; then
          look_after_run
        elif setup && start_training; then
          bare="" restarts=0
        fi
        ;;
      PREEMPTED | TERMINATED | NONE)
        echo "$(date +%T) the VM is gone ($state): making it anew"
        bare=yes
        [[ "$state" == NONE ]] || tpu delete --quiet || true
        create || echo "$(date +%T) no VM to be had; trying again"
        ;;
      STOPPED) tpu start ;;
    esac
    sleep "$poll_s"
  done
}

# One look at a run on a VM that is there; ends this script with the run.
look_after_run() {
  local state
  state="$(run_state)"
  case "$state" in
    running | unknown) ;;
    0)
      echo "the run is finished"
      exit 0
      ;;
    75 | 143 | gone) # saved and stopped, stopped before it began, lost with a restart of the VM
      ((++restarts <= 5)) || fail 1 "the run stopped again and again; logs shows why"
      echo "$(date +%T) the run stopped ($state): starting it again"
      start_training || true
      ;;
    *) fail 1 "the run failed with status $state; logs shows why" ;;
  esac
}

show_status() {
  if [[ -n "$dry_run" ]]; then
    tpu describe "--format=value(state)"
    on_first "$(state_script)"
    return
  fi
  local state
  state="$(vm_state)"
  echo "VM $name: $state"
  if [[ "$state" == READY ]]; then
    echo "run: $(run_state)"
    on_first "tail -q -n 1 $folder/runs/*/metrics.jsonl 2>/dev/null || true"
  fi
}

show_tensorboard() {
  echo "http://localhost:6006 once it is ready; Ctrl-C ends it"
  tpu ssh --worker=0 --quiet \
    "--command=cd $folder && .venv/bin/tensorboard --logdir runs --port 6006" \
    -- -L 6006:localhost:6006
}

# What they are made of ------------------------------------------------------------------------

# READY, PREEMPTED, ...; NONE where there is no such VM, UNKNOWN where nothing answers.
vm_state() {
  local answer
  if answer="$(tpu describe "--format=value(state)" 2>&1)"; then
    tail -n 1 <<<"$answer"
  elif [[ "$answer" == *NOT_FOUND* || "$answer" == *"not found"* ]]; then
    echo NONE
  else
    echo "$answer" >&2
    echo UNKNOWN
  fi
}

# running, gone (no process, no word of its end), unknown (no answer), or the exit status.
run_state() {
  on_first "$(state_script)" 2>/dev/null | tail -n 1 || echo unknown
}

state_script() {
  echo "if [ -s $status_file ]; then cat $status_file
elif $(is_training); then echo running
else echo gone; fi"
}

# A number may have been given to another process since.
is_training() {
  echo "grep -qs radcap.train \"/proc/\$(cat $process_file 2>/dev/null)/cmdline\""
}

# Whether the type has several hosts.
is_slice() {
  ((${type##*-} > 8))
}

on_all() {
  tpu ssh --worker=all --quiet "--command=$1"
}

on_first() {
  tpu ssh --worker=0 --quiet "--command=$1"
}

# copy FILE PATH: to every host.
copy() {
  run gcloud compute tpus tpu-vm scp "$1" "$name:$2" --worker=all --quiet ${place[@]+"${place[@]}"}
}

# tpu VERB ARGUMENT...: gcloud's command for this VM.
tpu() {
  run gcloud compute tpus tpu-vm "$1" "$name" ${place[@]+"${place[@]}"} "${@:2}"
}

run() {
  if [[ -n "$dry_run" ]]; then
    printf '%q ' "$@" | sed 's/ $//'
    echo
  else
    "$@"
  fi
}

main "$@"
