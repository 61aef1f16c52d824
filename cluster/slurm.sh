#!/usr/bin/env bash
#SBATCH --job-name=salt-lab
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
# Brings up Ray on the nodes of a Slurm allocation, runs one study on it, and takes Ray down again.
#
#   sbatch cluster/slurm.sh experiments/points.yaml [KEY=VALUE ...] [options of salt-lab run]
#
# Serves: salt-lab run STUDY. The repository, its .venv (make install) and the results folder lie on a file system that all nodes see.
# Stopped by the time limit? Submit the same line again: finished trials are kept, the others go on from their last checkpoints.
# cluster/README.md says how far this was tried.
set -euo pipefail

study=${1:?usage: sbatch cluster/slurm.sh STUDY [KEY=VALUE ...] [options of salt-lab run]}
shift
: "${SLURM_JOB_ID:?this is a Slurm batch script: sbatch cluster/slurm.sh $study}"
cd "${SLURM_SUBMIT_DIR:-.}"
export PATH="$PWD/${VENV:-.venv}/bin:$PATH"
export SALT_LAB_STORE=${SALT_LAB_STORE:-$PWD/runs}
export RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true

salt-lab plan "$study" >/dev/null # a study that cannot be read ends here, before a node starts anything

nodes=$SLURM_JOB_NUM_NODES
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
port=$((20000 + SLURM_JOB_ID % 10000)) # two jobs on one node do not meet
cores=${SLURM_CPUS_ON_NODE:-$(nproc)}
gpus=${SLURM_GPUS_ON_NODE:-0}
per_trial=()
if [ "$gpus" -gt 0 ]; then
  per_trial=(--gpus-per-trial 1 --cpus-per-trial "$((cores > gpus ? cores / gpus : 1))")
fi

# Ray runs anybody's code that reaches its ports: a token of this job's own, readable by its owner alone.
export RAY_AUTH_MODE=token
mkdir -p "$SALT_LAB_STORE"
export RAY_AUTH_TOKEN_PATH=$SALT_LAB_STORE/.ray-token-$SLURM_JOB_ID
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")

pids=()
finish() { # Ray's processes are children of these steps and go with them
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -f "$RAY_AUTH_TOKEN_PATH"
}
trap finish EXIT

ray_log=$SALT_LAB_STORE/ray-$SLURM_JOB_ID.log
echo "starting Ray on $nodes nodes, $cores cores and $gpus GPUs each; its output: $ray_log"
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --block --node-ip-address="$head" --port="$port" --dashboard-host=127.0.0.1 --ray-client-server-port="$((port + 10000))" \
  --temp-dir="/tmp/ray-$SLURM_JOB_ID" --num-cpus="$cores" --num-gpus="$gpus" >"$ray_log" 2>&1 &
pids+=($!)
if [ "$nodes" -gt 1 ]; then
  sleep 10 # the others look for the head as soon as they start
  srun --overlap --nodes="$((nodes - 1))" --ntasks="$((nodes - 1))" --exclude="$head" \
    ray start --block --address="$head:$port" --num-cpus="$cores" --num-gpus="$gpus" >>"$ray_log" 2>&1 &
  pids+=($!)
fi

# Wait for every node, five minutes at most.
timeout 300 python - "$head:$port" "$nodes" <<'WAIT' || { echo "not all of $nodes nodes joined within 5 minutes; see $ray_log" >&2; exit 1; }
import sys, time, ray
while not ray.is_initialized():
    try:
        ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
    except ConnectionError:
        time.sleep(3)
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]):
    time.sleep(1)
WAIT

# In the background, so that Slurm's notice before the time limit reaches it: trials write down that they were interrupted.
RAY_ADDRESS=$head:$port salt-lab run "$study" "${per_trial[@]}" "$@" &
run=$!
trap 'kill -TERM "$run" 2>/dev/null || true' TERM
code=0
wait "$run" || code=$?
while kill -0 "$run" 2>/dev/null; do # `wait` returns early on a signal
  wait "$run" && code=0 || code=$?
done
exit "$code"
