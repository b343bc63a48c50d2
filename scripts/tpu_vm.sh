#!/usr/bin/env bash
# Train on a Cloud TPU VM: one chip board (v3-8) or a slice of several hosts, spot or on demand.
set -euo pipefail

here=.
[[ "${BASH_SOURCE[0]}" != */* ]] || here="${BASH_SOURCE[0]%/*}"
# shellcheck source=tpu_vm_watch.sh
source "$here/tpu_vm_watch.sh"

usage() {
  cat <<'END'
usage: scripts/tpu_vm.sh COMMAND [OPTION ...] [OVERRIDE ...]

commands:
  create        make the TPU VM and wait until it is ready
  setup         copy this checkout and the Hugging Face token there, install, look at the machine
  train         start training on all hosts; it goes on when this terminal is closed; with --watch,
                a run that is in progress is looked after as it is
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
  --then-delete      train --watch: delete the VM once the run is finished
  --dry-run          print the commands instead of running them
  -h, --help         print this and stop

The token is read from HF_TOKEN or Hugging Face's own file, and copied as a file that only the user
can read: it is on no command line and in no log.

The VM is billed until it is deleted, also when its run has ended.

exit status: 0 done   1 failed   2 wrong arguments   130 a watch ended by Ctrl-C

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
      if [[ -z "$watch" ]]; then
        start_training || fail 1 "no training was started on $name"
      else
        keep_training
      fi
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
command="" spot=yes watch="" then_delete="" poll_s=60 dry_run="" scratch=""
overrides=() place=() # read as ${x[@]+"${x[@]}"}: the bash of macOS calls an empty list unset

# Hugging Face's own file; without a home there is none.
login="${HF_HOME:-${HOME:+$HOME/.cache/huggingface}}"
login="${login:+$login/token}"

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
      --then-delete) then_delete=yes ;;
      --dry-run) dry_run=yes ;;
      --name | --type | --zone | --project | --version | --mirror | --poll)
        [[ $# -ge 2 && -n "$2" && "$2" != -* ]] || fail 2 "$1: name its value"
        set_option "$1" "$2"
        shift
        ;;
      --name=* | --type=* | --zone=* | --project=* | --version=* | --mirror=* | --poll=*)
        [[ -n "${1#*=}" ]] || fail 2 "${1%%=*}: name its value"
        set_option "${1%%=*}" "${1#*=}"
        ;;
      -*) fail 2 "$(shown "$1"): no such option; --help lists them" ;;
      *=*) overrides+=("$1") ;;
      create | setup | train | status | tensorboard | logs | delete)
        [[ -z "$command" ]] || fail 2 "$command and $1: one command at a time"
        command="$1"
        ;;
      *) fail 2 "$(shown "$1"): no such command; --help lists them" ;;
    esac
    shift
  done
  [[ -n "$command" ]] || fail 2 "name a command; --help lists them"
  check_form --name "$name" '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$' \
    "letters, digits, _ . and - alone, a letter or digit first"
  check_form --type "$type" '^v[0-9][0-9a-z]*-[1-9][0-9]{0,4}$' "not a type such as v3-8"
  check_form --zone "$zone" '^([a-z]+-[a-z]+[0-9]+-[a-z0-9]+)?$' "not a zone such as us-central1-a"
  check_form --project "$project" '^([a-z0-9][a-z0-9.:-]*)?$' "not a project's id"
  check_form --version "$version" '^([a-z0-9][a-z0-9._-]*)?$' \
    "not an image such as tpu-ubuntu2204-base"
  [[ "$mirror" != *. ]] || fail 2 "--mirror $(shown "$mirror"): ends with a dot"
  check_form --mirror "$mirror" \
    '^(gs://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+)?$' \
    "not an address such as gs://BUCKET/runs/NAME"
  check_form --poll "$poll_s" '^[0-9]{1,6}(\.[0-9]{1,6})?$' "not a number of seconds"
  [[ "$poll_s" =~ [1-9] ]] || fail 2 "--poll $poll_s: more than 0 seconds"
  [[ "$type" != v5e-* ]] || type="v5litepod-${type#v5e-}" # gcloud's name for it
  place=(${zone:+"--zone=$zone"} ${project:+"--project=$project"})
  if [[ ${#overrides[@]} -gt 0 && "$command" != train ]]; then
    fail 2 "$(shown "${overrides[0]}"): only train takes overrides"
  fi
  [[ "$command" != train ]] || check_training
  if [[ -n "$dry_run" && -z "$zone" ]]; then
    echo "no --zone: gcloud takes its own setting, and refuses these commands where it has none" >&2
  fi
}

# check_form OPTION VALUE PATTERN WORDS: whether it comes from the command line or the environment.
check_form() {
  local LC_ALL=C # elsewhere a-z may hold other letters
  [[ "$2" =~ $3 ]] || fail 2 "$1 $(shown "$2"): $4"
}

# A text of others on one line.
shown() {
  if [[ "$1" == *[[:cntrl:]]* ]]; then printf %q "$1"; else printf %s "$1"; fi
}

check_training() {
  local word
  if [[ -n "$watch" && -z "$mirror" ]]; then
    fail 2 "--watch needs --mirror gs://BUCKET/runs/NAME: a preempted VM takes its disk with it"
  fi
  [[ -z "$then_delete" || -n "$watch" ]] || fail 2 "--then-delete needs --watch"
  for word in ${overrides[@]+"${overrides[@]}"}; do
    [[ "$word" =~ ^(\+{0,2}|~)[A-Za-z_][A-Za-z0-9_./@-]*= && "$word" != *[[:cntrl:]]* ]] ||
      fail 2 "$(shown "$word"): not an override such as seed=1"
    word="${word#"${word%%[!+]*}"}" # Hydra takes ++KEY=VALUE too
    check_group "${word%%=*}" "${word#*=}"
    case "$word" in
      run.name="${mirror##*/}") ;;
      run.name=* | run.dir=* | run.mirror=*)
        [[ -z "$mirror" ]] || fail 2 "$word: --mirror $mirror names the run; leave it out"
        ;;
      run.fresh=[Ff]alse) ;;
      run.fresh=*)
        [[ -z "$watch" ]] || fail 2 "$word: --watch would start anew at each restart; another --mirror"
        ;;
    esac
  done
}

# check_group KEY VALUE: of a group of configurations, such as experiment, there has to be that one.
check_group() {
  local file names=""
  [[ "$1" != */* && -d "$here/../configs/$1" ]] || return 0
  for file in "$here/../configs/$1"/*.yaml; do
    file="${file##*/}"
    [[ "$2" != "${file%.yaml}" ]] || return 0
    names+="${names:+, }${file%.yaml}"
  done
  fail 2 "$1=$2: no such $1; there are $names"
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
  # Google's notice of a preemption reaches a run in its first second, also in a container.
  tpu create "--accelerator-type=$type" "--version=${version:-$(image_of_type)}" \
    "--metadata=shutdown-script=pkill -TERM -f radcap.train; sleep 28" ${spot:+--spot}
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
  pack || return
  copy "$scratch/radcap.tgz" radcap.tgz || return
  send_token || return
  on_all "set -e
if $(is_training); then echo 'a run is in progress here'; exit 3; fi
mkdir -p $folder && cd $folder
rm -rf configs radcap scripts
tar -xzf ../radcap.tgz
export PATH=\"\$HOME/.local/bin:\$PATH\"
if [ ! -x .venv/bin/python ]; then
  command -v uv >/dev/null || python3 -m pip install --quiet --user uv
  uv venv --quiet --seed --python 3.11 .venv
fi
source scripts/setup.sh && install_radcap tpu,gcs
.venv/bin/python -m radcap.doctor runtime=tpu"
}

# This checkout in a file, once: a VM made anew gets what the first one got.
pack() {
  make_scratch
  [[ ! -s "$scratch/radcap.tgz" ]] || return 0
  run tar -czf "$scratch/radcap.tgz" --exclude=__pycache__ -C "$here/.." \
    pyproject.toml README.md LICENSE NOTICE configs radcap scripts
}

# One folder for temporary files, gone with this script.
make_scratch() {
  [[ -z "$scratch" ]] || return 0
  scratch="$(mktemp -d)"
  trap 'rm -rf "$scratch"' EXIT
}

# As a file of mode 600, where Hugging Face's own login would put it.
send_token() {
  { local tracing="$-" && set +x; } 2>/dev/null # bash -x would print the token
  local file="$scratch/token" there="" status=0
  ! has_token || there=yes
  if [[ -n "$there" && -z "$dry_run" ]]; then
    (umask 077 && if [[ -n "${HF_TOKEN:-}" ]]; then printf '%s' "$HF_TOKEN"; else cat "$login"; fi \
      >"$file")
  fi
  [[ "$tracing" != *x* ]] || set -x
  if [[ -z "$there" ]]; then
    echo "no HF_TOKEN here: the gated data set will be refused; data=phantom works without"
    return
  fi
  { on_all "mkdir -p -m 700 .cache/huggingface" && copy "$file" .cache/huggingface/token; } ||
    status=1
  rm -f "$file"
  return "$status"
}

has_token() {
  [[ -n "${HF_TOKEN:-}" || -s "$login" ]]
}

start_training() {
  local words=(${overrides[@]+"${overrides[@]}"}) fetch="" line
  if [[ -n "$mirror" ]]; then
    words+=("run.name=${mirror##*/}" "run.mirror=$mirror")
    if is_slice; then
      # Its hosts have a disk each; the trainer itself restores the first one's.
      fetch="$(printf '%q ' .venv/bin/python -c "$restore" "$mirror" "runs/${mirror##*/}") ||
  { echo 'the run could not be fetched'; exit 4; }
"
    fi
  elif [[ -n "$spot" ]]; then
    echo "without --mirror, a spot VM that is preempted takes the run with it"
  fi
  line="$(printf '%q ' .venv/bin/python -m radcap.train runtime=tpu ${words[@]+"${words[@]}"})"
  line="${line% }; echo \$? >../$status_file"
  on_all "if $(is_training); then echo 'a run is in progress here'; exit 3; fi
cd $folder || exit
${fetch}rm -f ../$status_file
nohup setsid bash -c $(printf %q "$line") >>../$log_file 2>&1 </dev/null &
echo \$! >../$process_file
sleep 1" || return
  [[ -n "$dry_run" ]] || echo "training on $name; scripts/tpu_vm.sh logs follows it"
}

# Fetches the run of argument 1 into the folder of argument 2, if it is newer there.
restore="import sys; from pathlib import Path; from radcap.training.run.mirror import Mirror; \
Mirror(sys.argv[1]).restore(Path(sys.argv[2]))"

# Ends what is left of a run on every host, some seconds after asking it to.
stop_training() {
  on_all "[ -s $process_file ] || exit 0
group=\$(cat $process_file)
pkill -TERM -g \$group -f radcap.train || exit 0
for _ in \$(seq 60); do
  pgrep -g \$group -f radcap.train >/dev/null || exit 0
  sleep 0.5
done
pkill -KILL -g \$group -f radcap.train || true"
}

show_status() {
  if [[ -n "$dry_run" ]]; then
    tpu describe "--format=value(state)"
    on_all "$(state_script)"
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
    -- -t -L 6006:localhost:6006 # with -t, Ctrl-C ends it there too
}

# What they are made of ------------------------------------------------------------------------

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
