// SPDX-License-Identifier: Apache-2.0
//! The atoms that the SDK itself gives to Erlang.

rustler::atoms! {
    badarg, cancelled, closed, done, encode, error, fail_fast, full, not_owner, ok, overloaded, panic, pending,
    push, ready, running, sending, sent, settle, shutdown, stopped, tokamak, undefined, unknown_operation, use_reference, timeout,
    waiting, woken, wrong_kind,

    async_ = "async", eager, blocking, stream, duplex,

    arity, blocking_running, blocking_waiting, engine, in_flight, kind, max_blocking_threads,
    max_in_flight, name,

    bad_return, dispatched, duplicates, failed, finished, item, over, refused, results, start, stop, succeeded,

    operations, queue_depth, runtime, slow_polls, tasks, workers,

    active, busy, calls, ended, free, gather, idle, parked, parks, parts, pool, pool_info, pools, probed, refused_calls,
    refused_events, sample, submit, sum, times, uptime, runs,
}
