#!/usr/bin/env bash
# Submit a training to a Ray cluster that is running already. `launch/submit.sh --help` says how.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: launch/submit.sh [--no-wait] [--no-check] [--dry-run] <address> <override> [override ...]

  <address>    the cluster's dashboard, such as http://head:8265
  <override>   arguments of `python -m mifo_verl.train`, passed on as they are
  --no-wait    return once the job is accepted; else its log is followed and its exit code returned
  --no-check   do not ask the cluster for its GPUs, for one that grows when a job comes
  --dry-run    print the command and submit nothing

example: launch/submit.sh http://head:8265 experiment=mifo trainer.nnodes=2 \
           actor_rollout_ref.model.path=/shared/models/base run_dir=/shared/runs/mifo-0 seed=0
USAGE
}

fail() {
  echo "error: $1" >&2
  exit 2
}

wait_option=() check=true dry_run=false
while [[ $# -gt 0 ]]; do
  case "$1" in
    -h | --help) usage && exit 0 ;;
    --no-wait) wait_option=(--no-wait) && shift ;;
    --no-check) check=false && shift ;;
    --dry-run) dry_run=true && shift ;;
    -*) fail "$1 must be one of --no-wait, --no-check, --dry-run, --help; see launch/submit.sh --help" ;;
    *) break ;;
  esac
done

[[ $# -ge 1 ]] || fail "<address> must be given; write launch/submit.sh http://<head>:8265 experiment=<name>"
address=$1 && shift
[[ "$address" =~ ^https?://[^/]+ ]] || fail "address=$address must be http://<head>:<dashboard port>; the port is 8265 by default"
[[ $# -ge 1 ]] || fail "an override must be given; write experiment=<name>, a file of trainer_configs/experiment/"
run_dir=""
for override in "$@"; do
  [[ "$override" != run_dir=* ]] || run_dir=${override#run_dir=}
done
[[ "$run_dir" == /* ]] || fail "run_dir=$run_dir must be an absolute path on storage that every node sees; add run_dir=/<shared>/<name>"
# `ray start` asks for the token where there is one, and `ray job` must be told to send it.
if [[ -z "${RAY_AUTH_MODE:-}" && (-n "${RAY_AUTH_TOKEN:-}" || -e "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}") ]]; then
  export RAY_AUTH_MODE=token
fi
command -v ray > /dev/null || fail "ray must be on PATH; activate the environment that mifo_verl is installed in"

# What a job must not carry: environments, runs, data. /data/ is anchored, since mifo_verl/data/ is code.
# The config brings the other env_vars, and Ray refuses a variable that both of them set. Of this one's seconds `ray job
# stop` gives a run to save what it has; Ray's own 3 are too few.
runtime_env='{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "600"}, "excludes": ["/.git/", "/.venv/", "/.venv-lock/", "/.venv-vllm/", "/runs/", "/outputs/", "/data/", "*.egg-info", "__pycache__"]}'

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
submit=(ray job submit --address "$address" --working-dir "$repository" --runtime-env-json "$runtime_env"
  "${wait_option[@]}" -- python -m mifo_verl.train "$@")

if "$dry_run"; then
  printf '%q ' "${submit[@]}" && echo
  exit 0
fi
if "$check"; then
  (cd "$repository" && python -m mifo_verl.checks.cluster "$address" "$@") || exit 2
fi
exec "${submit[@]}"
