#!/usr/bin/env bash
# As many trials of a study as fit into some minutes on one machine with a GPU, several side by side, without Ray; what came out is packed into
# few files, and the next call goes on from them. Also on a machine without a GPU.
#
#   cluster/gpu_minutes.sh STUDY [KEY=VALUE ...] [options of salt-lab run]
#
#   MINUTES=8      after so many minutes trials are asked to stop: each takes its step to the end and keeps a checkpoint
#   PROCESSES=N    trials side by side; default: half of the cores, 8 at most. Small trials leave most of a GPU idle when they run alone
#   FROM=FOLDER    packs of earlier calls (FOLDER/pack.json, or FOLDER/*/pack.json), merged into STORE first; none is fine
#   OUT=FOLDER     where the pack goes: at most 8 files of 16 MiB; default: not packed
#   STORE=FOLDER   the results folder; default: runs
#   PYTHON=...     default: the repository's .venv, else python3
#
# Exit codes are those of salt-lab run: 0 all done, 1 some failed, 2 refused, 75 time is up and there is more to do: call it again.
# Serves: a machine lent for ten minutes at a time that keeps nothing. cluster/README.md has the whole round trip.
set -euo pipefail

main() { # a function, so that bash has read all of it before it starts
  study=${1:?usage: cluster/gpu_minutes.sh STUDY [KEY=VALUE ...] [options of salt-lab run]}
  shift
  here=$(cd "$(dirname "$0")/.." && pwd)
  python=${PYTHON:-$here/.venv/bin/python}
  [ -x "$python" ] || python=python3
  store=${STORE:-runs}
  seconds=$(awk "BEGIN {print int(60 * ${MINUTES:-8})}")
  cores=$(nproc)
  many=${PROCESSES:-$((cores / 2 > 8 ? 8 : (cores / 2 > 0 ? cores / 2 : 1)))}
  export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
  mkdir -p "$store"

  overrides=() # the words of KEY=VALUE, which packing needs, too
  for word in "$@"; do case $word in -*) break ;; *=*) overrides+=("$word") ;; *) break ;; esac; done

  if [ -n "${FROM:-}" ]; then
    for pack in "$FROM/pack.json" "$FROM"/*/pack.json; do
      [ -f "$pack" ] && "$python" "$here/cluster/carry.py" unpack "$(dirname "$pack")" --store "$store"
    done
  fi

  share=() # of the GPU, for the records
  if [ -e /dev/nvidiactl ] && [ "$many" -gt 1 ]; then share=(--gpus-per-trial "$(awk "BEGIN {print 1 / $many}")"); fi
  run=("$python" -m salt_lab run "$study" "$@" --executor serial --no-mlflow --store "$store" --cpus-per-trial "$((cores / many > 0 ? cores / many : 1))" "${share[@]}")

  # The first one waits for the trials of the others and prints the table; the others only lend a hand, and take what nobody runs.
  pids=()
  stop() { for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done; }
  trap stop TERM INT
  "${run[@]}" --for "${seconds}s" &
  pids+=($!)
  for number in $(seq 2 "$many"); do
    "${run[@]}" --for "${seconds}s" --no-wait >"$store/process-$number.log" 2>&1 &
    pids+=($!)
  done
  code=0
  for index in "${!pids[@]}"; do
    one=0
    while wait "${pids[$index]}" && one=0 || one=$?; kill -0 "${pids[$index]}" 2>/dev/null; do :; done # `wait` returns early on a signal
    [ "$index" -ne 0 ] || code=$one
  done

  if [ -n "${OUT:-}" ]; then
    if ! compgen -G "$store/trials/*/record.jsonl" >/dev/null; then
      echo "nothing to pack: no trial was started" >&2
    elif ! "$python" "$here/cluster/carry.py" pack "$study" "${overrides[@]}" --store "$store" --to "$OUT"; then
      echo "NOT packed: $store keeps everything as long as this machine does" >&2
      code=2
    fi
  fi
  exit "$code"
}

main "$@"
