#!/bin/bash
# predict, on Flink: /data/desi out
#SBATCH --job-name=beam-zoo-predict
#SBATCH --chdir=/home/ada/beam-zoo
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --output='/data/desi out/_slurm/%j.log'
#SBATCH --signal=B:TERM@60
#SBATCH --time=60
#SBATCH --no-requeue

exec /envs/zoo/bin/python -P -m runners.slurm.job \
  --flink=/shared/flink \
  -- predict \
  --catalogue='/data/a galaxy'"'"'s.csv' \
  --models=/m/a.yaml \
  --output='/data/desi out' \
  --device=cuda
