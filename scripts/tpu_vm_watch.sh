# Sourced by tpu_vm.sh: how the VM and its run are, and `train --watch`.
# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables are tpu_vm.sh's

most_failures=5

# Looks at the VM and the run until the run has ended; a VM that was taken away is made anew.
keep_training() {
  local state="" seen="" bare="" gone="" restarts=0 restarted_at=0 failures=0
  if [[ -n "$dry_run" ]]; then
    start_training
    echo "# every $poll_s s; where it says PREEMPTED: delete, create, setup and train as above"
    tpu describe "--format=value(state)"
    return
  fi
  has_token || echo "no HF_TOKEN in this terminal: a VM made anew will be without; only open data works"
  pack
  trap 'end_watch 130 "the watch is ended, the run is not"' INT TERM
  if [[ "$(run_state)" == running ]]; then
    echo "a run is in progress on $name: looking after it"
  else
    start_training || end_watch 1 "no training was started on $name"
  fi
  while true; do
    state="$(vm_state)"
    [[ "$state" == "$seen" || "$state" == READY ]] || echo "$(date +%T) the VM is $state"
    seen="$state"
    case "$state" in
      READY)
        gone=""
        if [[ -z "$bare" ]]; then
          look_after_run
        elif setup; then
          bare="" failures=0
          start_training || true # what did not start is seen at the next look
        else
          count_failure "setup failed"
        fi
        ;;
      PREEMPTED | TERMINATED)
        echo "$(date +%T) the VM is gone ($state): making it anew"
        bare=yes gone=yes
        if tpu delete --quiet; then
          make_anew
        else
          echo "$(date +%T) what is left of it could not be deleted; trying again"
        fi
        ;;
      NONE)
        # Whoever deleted it elsewhere wants no other one.
        [[ -n "$gone" ]] || end_watch 1 "there is no VM $name any more, and it was not preempted"
        make_anew
        ;;
      STOPPED)
        echo "$(date +%T) starting it"
        tpu start || count_failure "it did not start"
        ;;
    esac
    sleep "$poll_s"
  done
}

make_anew() {
  if create; then
    gone=""
  else
    echo "$(date +%T) no VM to be had; trying again"
  fi
}

# A VM on which nothing works is billed all the same.
count_failure() {
  echo "$(date +%T) $1 ($((++failures)) of $most_failures)"
  ((failures < most_failures)) || end_watch 1 "$1 again and again"
}

# end_watch STATUS TEXT: says what is left, and ends this script.
end_watch() {
  trap - INT TERM
  if [[ "$1" == 0 ]]; then echo "$2"; else echo "tpu_vm.sh: $2" >&2; fi
  if [[ "$state" == NONE ]]; then
    echo "nothing is billed for it"
  elif [[ "$1" != 0 || -z "$then_delete" ]] || ! tpu delete --quiet; then
    echo "the VM $name is still running and billed; this ends that:"
    printf '  scripts/tpu_vm.sh delete'
    printf ' %q' --name "$name" ${zone:+--zone "$zone"} ${project:+--project "$project"}
    echo
  fi
  exit "$1"
}

# One look at a run on a VM that is there; ends this script with the run.
look_after_run() {
  local run step
  run="$(run_state)"
  case "$run" in
    running | unknown) ;;
    0) end_watch 0 "the run is finished" ;;
    75 | 143 | gone) # saved and stopped, stopped before it began, lost with a restart of the VM
      step="$(run_step)"
      ((step <= restarted_at)) || restarts=0 # it did get on
      restarted_at="$step"
      ((++restarts <= most_failures)) ||
        end_watch 1 "the run stopped again and again; logs shows why"
      echo "$(date +%T) the run stopped ($run): starting it again"
      stop_training || true
      start_training || true
      ;;
    *) end_watch 1 "the run failed with status $run; logs shows why" ;;
  esac
}

# READY, PREEMPTED, ...; NONE where there is no such VM, UNKNOWN where nothing answers.
vm_state() {
  local answer
  make_scratch
  if answer="$(tpu describe "--format=value(state)" 2>"$scratch/said")"; then
    tail -n 1 <<<"$answer"
  elif grep -q "NOT_FOUND:" "$scratch/said"; then
    echo NONE
  else
    cat "$scratch/said" >&2
    echo UNKNOWN
  fi
}

# Of all hosts the worst: another status than those of a stop, gone (no process, no word of its
# end), a stop's status, running, 0. Unknown where a host does not answer.
run_state() {
  local answers word rank worst=unknown highest=0
  answers="$(on_all "$(state_script)" 2>/dev/null)" || answers=""
  while read -r word; do
    case "$word" in
      0) rank=1 ;;
      running) rank=2 ;;
      75 | 143) rank=3 ;;
      gone) rank=4 ;;
      *) rank=5 ;;
    esac
    if ((rank > highest)); then
      highest="$rank" worst="$word"
    fi
  done < <(sed -nE 's/^radcap: ([0-9]+|running|gone)$/\1/p' <<<"$answers")
  echo "$worst"
}

state_script() {
  echo "if [ -s $status_file ]; then echo \"radcap: \$(cat $status_file)\"
elif $(is_training); then echo 'radcap: running'
else echo 'radcap: gone'; fi"
}

# The last step that the run wrote down, 0 before the first.
run_step() {
  local answer
  answer="$(on_first "tail -n 1 $folder/runs/${mirror##*/}/metrics.jsonl" 2>/dev/null)" || answer=""
  answer="$(sed -nE 's/^\{"step": ([0-9]+).*/\1/p' <<<"$answer" | tail -n 1)"
  echo "${answer:-0}"
}
