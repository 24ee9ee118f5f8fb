#!/bin/bash
# predict, on Flink: /data/desi out
#SBATCH --job-name=beam-zoo-predict
#SBATCH --chdir=/home/ada/beam-zoo
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --nodes=2
#SBATCH --gres=gpu:a100:2,nvme:100
#SBATCH --exclusive
#SBATCH --output='/data/desi out/_slurm/%j.log'
#SBATCH --signal=B:TERM@60
#SBATCH --time=12:00:00
#SBATCH --account=galaxies
#SBATCH --hold

export JAVA_HOME='/opt/java 17'
exec /envs/zoo/bin/python -P -m runners.slurm.job \
  --flink=/shared/flink \
  --gpus_per_node=2 \
  -- predict \
  --catalogue='/data/a galaxy'"'"'s.csv' \
  --models=/m/a.yaml \
  --output='/data/desi out' \
  --device=cuda
