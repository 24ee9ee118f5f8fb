#!/bin/sh
# What the cluster tests need, where it may be installed: by root on Debian. Elsewhere they do not run.
set -eu
missing=""
for program in munged slurmctld slurmd srun ip ss java javac; do
    command -v "$program" > /dev/null || missing="$missing $program"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "the cluster tests do not run: they need$missing, which root installs on Debian"
    exit 0
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
    munge slurmctld slurmd slurm-client iproute2 openjdk-17-jdk-headless > /dev/null
