/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C table of tokamak: how a foreign runtime (C, Python, another NIF library) takes callback ids and
 * pushes events into event loops from threads of its own.
 *
 * Fetch the table once, in a NIF call, with the term that tokamak_nif:table/0 returns:
 *
 *     tokamak_table_request request = {TOKAMAK_TABLE_VERSION, NULL};
 *     int failed = enif_dynamic_resource_call(env, enif_make_atom(env, "tokamak_nif"),
 *                                             enif_make_atom(env, "tokamak_table"), term, &request);
 *     if (failed || request.table == NULL) ... another term, or another version ...
 *
 * The table stays valid for as long as the VM lives. A function that was added later is there if
 * table->size reaches beyond it.
 */
#ifndef TOKAMAK_H
#define TOKAMAK_H

#include <stddef.h>
#include <stdint.h>

#include "erl_nif.h"

#define TOKAMAK_TABLE_VERSION 2

/* What functions return. */
enum tokamak_status {
    TOKAMAK_OK = 0,
    TOKAMAK_OVERLOADED = 1,   /* the loop's max_queue events wait to be delivered */
    TOKAMAK_CLOSED = 2,       /* the loop has ended */
    TOKAMAK_BAD_ARGUMENT = 3, /* an id, type or payload that cannot be */
    TOKAMAK_FAILED = 4,       /* the library failed; nothing was done */
    TOKAMAK_BUSY = 5,         /* a process or another thread polls the loop */
    TOKAMAK_TIMED_OUT = 6,    /* nothing came in time */
    TOKAMAK_NOT_SUPPORTED = 7 /* not with this kind of loop */
};

/* Event types; their codes never change. */
enum tokamak_event_type {
    TOKAMAK_READ = 1,
    TOKAMAK_WRITE = 2,
    TOKAMAK_TIMER = 3,
    TOKAMAK_CALL_RESULT = 10,
    TOKAMAK_CALL_ERROR = 11,
    TOKAMAK_ASYNC_RESULT = 12,
    TOKAMAK_ASYNC_ERROR = 13,
    TOKAMAK_SUBPROCESS_EXIT = 20,
    TOKAMAK_SUBPROCESS_STDOUT = 21,
    TOKAMAK_SUBPROCESS_STDERR = 22,
    TOKAMAK_SOCKET_DATA = 30,
    TOKAMAK_SOCKET_CLOSED = 31,
    TOKAMAK_SOCKET_ERROR = 32,
    TOKAMAK_USER = 40
};

/* The Data of an event. */
enum tokamak_payload_kind {
    TOKAMAK_PAYLOAD_UNDEFINED = 0, /* the atom undefined */
    TOKAMAK_PAYLOAD_INTEGER = 1,
    TOKAMAK_PAYLOAD_BYTES = 2 /* a binary; the bytes are copied */
};

typedef struct {
    uint32_t kind;
    int64_t integer;
    const uint8_t *bytes;
    size_t length;
} tokamak_payload;

/* The result of a submitted call. */
typedef struct {
    uint64_t callback_id;
    ERL_NIF_TERM term; /* of the environment that is pushed with it */
    int32_t is_error;
} tokamak_result;

/* An event that was polled. */
typedef struct {
    uint64_t callback_id;
    uint32_t type;     /* an enum tokamak_event_type */
    ERL_NIF_TERM data; /* of the environment that comes with it */
} tokamak_event;

/* A reference to an event loop: it keeps the loop's memory, not the loop, alive. */
typedef struct tokamak_loop tokamak_loop;

typedef struct {
    uint32_t version;
    uint32_t size;

    /* Reserves count callback ids, at most 2^40: the first one, or 0 when there are not so many left. Any thread. */
    uint64_t (*id_reserve)(uint64_t count);

    /* Takes a reference to the loop that a term of the running NIF call stands for, or NULL. */
    tokamak_loop *(*loop_retain)(ErlNifEnv *env, ERL_NIF_TERM term);

    /* Gives a reference back. Any thread. */
    void (*loop_release)(tokamak_loop *loop);

    /*
     * Pushes an event. 0 as time-out: at once or not at all; otherwise waits so long for room. From
     * threads that are not the VM's only; a NIF uses tokamak_loop:post/4.
     */
    int32_t (*loop_push)(tokamak_loop *loop, uint64_t callback_id, uint32_t event_type,
                         const tokamak_payload *payload, uint64_t timeout_milliseconds);

    /*
     * Results of work that was submitted to a loop. Reserve their places first (TOKAMAK_OVERLOADED when
     * there are not so many), then push each result once, or give its place back. Any thread.
     */
    int32_t (*loop_reserve)(tokamak_loop *loop, uint64_t count);
    void (*loop_unreserve)(tokamak_loop *loop, uint64_t count);

    /*
     * Has ended(context) called once when the loop ends, on any thread; at once if it has. Untie returns
     * the context, or NULL when the call was made, or is being made. Any thread.
     */
    uint64_t (*loop_tie)(tokamak_loop *loop, void (*ended)(void *context), void *context);
    void *(*loop_untie)(tokamak_loop *loop, uint64_t tie);

    /*
     * Pushes async_results (is_error 0) and async_errors into reserved places. The process-independent
     * environment is taken over, with the terms of the results that live in it. From threads that are not
     * the VM's only.
     */
    void (*loop_push_results)(tokamak_loop *loop, ErlNifEnv *env, const tokamak_result *results,
                              size_t count);

    /*
     * Reports that done of total units of a key are done, for tokamak_progress: at any rate, as subscribers
     * are sent an update an interval. The key is a term of an environment that the caller owns; it is copied
     * where it is kept. From threads that are not the VM's only.
     */
    void (*progress_report)(ErlNifEnv *env, ERL_NIF_TERM key, uint64_t done, uint64_t total);

    /*
     * Waits for events, as tokamak_loop:poll/2 does, and calls take(context, env, events, count) once with those
     * that there are, before it returns TOKAMAK_OK. Events and environment are the callee's until it returns.
     * One polls a loop at a time: TOKAMAK_BUSY. Not for raw loops, nor for those with the select backend. From
     * threads that are not the VM's only.
     */
    int32_t (*loop_poll)(tokamak_loop *loop, uint64_t timeout_milliseconds,
                         void (*take)(void *context, ErlNifEnv *env, const tokamak_event *events, size_t count),
                         void *context);
} tokamak_table;

typedef struct {
    uint32_t version;           /* in: TOKAMAK_TABLE_VERSION */
    const tokamak_table *table; /* out: NULL when the library has another version */
} tokamak_table_request;

#endif
