#!/bin/bash
# predict, some snippets a task: /data/desi out
#SBATCH --job-name=beam-zoo-predict
#SBATCH --chdir=/home/ada/beam-zoo
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --array=0-1
#SBATCH --nodes=1
#SBATCH --gpus-per-task=1
#SBATCH --ntasks=1
#SBATCH --output='/data/desi out/_slurm/%A_%a.log'
#SBATCH --signal=B:TERM@60
#SBATCH --time=12:00:00
#SBATCH --account=galaxies
#SBATCH --hold

export JAVA_HOME='/opt/java 17'
snippets=(0:12 12:25)
[ -z "$OMP_NUM_THREADS" ] || echo "OMP_NUM_THREADS=$OMP_NUM_THREADS of the shell that submitted: this task computes on $OMP_NUM_THREADS of its $SLURM_CPUS_ON_NODE cores" >&2
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_ON_NODE}
exec /envs/zoo/bin/python -P -m pipelines.predict \
  --catalogue='/data/a galaxy'"'"'s.csv' \
  --models=/m/a.yaml \
  --output='/data/desi out' \
  --device=cuda \
  --snippets="${snippets[$SLURM_ARRAY_TASK_ID]}"
