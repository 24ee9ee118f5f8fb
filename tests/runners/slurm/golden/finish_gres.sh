#!/bin/bash
# predict, the tables: /data/desi out
#SBATCH --job-name=beam-zoo-tables
#SBATCH --chdir=/home/ada/beam-zoo
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --nodes=1
#SBATCH --gres=nvme:100
#SBATCH --output='/data/desi out/_slurm/%j.log'
#SBATCH --time=60
#SBATCH --partition=gpu
#SBATCH --constraint='a100|h100'

export JAVA_HOME='/opt/java 17'
exec /envs/zoo/bin/python -P -m runners.slurm.tables \
  '/data/desi out' \
  --max_failure_fraction=0.05
