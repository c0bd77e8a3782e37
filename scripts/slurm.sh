#!/usr/bin/env bash
# One training run on a SLURM cluster: one process per GPU, on one node or several. The flags are those of experiments.train, and the
# resources may be overridden in front of the script's name:
#
#   make install ACCEL=cuda12                                     once, on a file system that all nodes see
#   sbatch scripts/slurm.sh --config=configs/mnist_vae.py --workdir=runs/a --config.data.dir=...
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 scripts/slurm.sh --config=... --workdir=runs/b
#
# The workdir is on the shared file system too. Before the time limit, and when it is preempted, the run saves, exits with 143 and is
# queued again; the same command then resumes it. A cancelled job (scancel) saves too, and stays cancelled.
#
#SBATCH --job-name=vaeflow
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@180
# One task per GPU, and every task must SEE all GPUs of its node: jax takes the one with the number of its task on the node
# (SLURM_LOCALID). So --gpus-per-node, not --gpus-per-task. TERM@180 reaches the tasks, not this script, 180 s before the limit.

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?this script is started by sbatch}"
python=${VENV:-.venv}/bin/python
[ -x "$python" ] || { echo "error: $python does not exist; make install ACCEL=cuda12 first" >&2; exit 2; }

several=()
[ "${SLURM_NTASKS:-1}" -eq 1 ] || several=(--distributed)

# --wait: when one process has ended, the others have two minutes to finish their save before they are killed.
# ${several[@]+...}: before bash 4.4 an empty array is an unset variable to `set -u`.
status=0
srun --wait=120 "$python" -m experiments.train ${several[@]+"${several[@]}"} "$@" || status=$?

if [ "$status" -eq 143 ] && scontrol show job "$SLURM_JOB_ID" | grep -q 'JobState=RUNNING'; then
    echo "stopped by a signal and saved; queued again"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
