#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the demonstration's pipe and FIFO are fed: 20 batches of numbers, one every tenth of a second.
set -eu

batch=0
while [ "$batch" -lt 20 ]; do
    seq 10000
    sleep 0.1
    batch=$((batch + 1))
done
