#!/bin/sh
# What the cluster tests need, where it may be installed: by root on Debian. Elsewhere they do not run.
set -eu
packages="munge slurmctld slurmd slurm-client iproute2 openjdk-17-jdk-headless"
missing=""
for program in munged slurmctld slurmd srun ip ss java javac; do
    command -v "$program" > /dev/null || missing="$missing $program"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "the cluster tests do not run: they need$missing, which root installs on Debian"
    exit 0
fi
echo "the cluster tests need$missing: installing system packages as root, apt-get install $packages"
apt-get update -qq
# shellcheck disable=SC2086  # one word for each package
DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $packages > /dev/null
