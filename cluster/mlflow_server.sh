#!/usr/bin/env bash
# One MLflow server for several machines or people.
#
#   cluster/mlflow_server.sh FOLDER [PORT]
#
# Serves: MLFLOW_TRACKING_URI=http://127.0.0.1:PORT salt-lab run STUDY, and salt-lab sync STORE with the same variable.
# It listens on loopback only, since MLflow lets in whoever reaches it: from elsewhere use `ssh -L 5000:127.0.0.1:5000 HOST`.
# Metadata goes to FOLDER/mlflow.db (SQLite), files to FOLDER/artifacts; BACKEND=postgresql://... names another database.
set -euo pipefail

folder=${1:?usage: cluster/mlflow_server.sh FOLDER [PORT]}
port=${2:-5000}
mkdir -p "$folder/artifacts"
folder=$(cd "$folder" && pwd)
here=$(cd "$(dirname "$0")/.." && pwd)
mlflow=$here/${VENV:-.venv}/bin/mlflow
[ -x "$mlflow" ] || { echo "$mlflow is not there: make install" >&2; exit 2; }

# Without job runners and with one worker it starts in seconds and takes half a gigabyte.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true
exec "$mlflow" server --host 127.0.0.1 --port "$port" --workers "${WORKERS:-1}" \
  --backend-store-uri "${BACKEND:-sqlite:///$folder/mlflow.db}" --serve-artifacts --artifacts-destination "$folder/artifacts"
