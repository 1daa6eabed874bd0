#!/bin/bash
# sbatch docs/launch/slurm.sh consistency-cityscapes-swiftnet18 --split eighth --out /shared/runs/one
# One torchrun on each machine; they meet at the first. Preempted jobs are requeued and resume.
#SBATCH --job-name=warpseg
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -euo pipefail

: "${WARPSEG_DATA:=/shared/data}"        # a converted data set, or a URL such as s3://bucket/data
: "${WARPSEG_LOCAL:=/tmp/warpseg-data}"  # where a URL's data set is staged on each machine
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

data=$WARPSEG_DATA
if [[ $data == *://* ]]; then
    srun warpseg fetch "$data" "$WARPSEG_LOCAL"
    data=$WARPSEG_LOCAL
fi

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node gpu --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$head:29500" --rdzv-id "$SLURM_JOB_ID" \
    -m warpseg train "$@" --data "$data" --resume
