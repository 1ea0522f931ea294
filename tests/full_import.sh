#!/usr/bin/env bash
# Import over the whole set of reference checkpoints, which is too large for this repository: every variant against the others of its model, against
# the reference's logits, log-probabilities and greedy tokens, and out and in again.  usage: tests/full_import.sh BUILD [FIXTURES/models]
set -u
build=${1:-build}
models=${2:-../shared/fixtures/models}
[ -d "$models/m1" ] || { echo "$models is not there: nothing to check against"; exit 1; }
DUET_FIXTURES=$models exec "$build/tests/models/test_import"
