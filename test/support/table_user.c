/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A foreign runtime as small as can be: whatever it asks of tokamak, it asks through the C table, from a thread
 * that the VM does not know.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "tokamak.h"

static const tokamak_table *table;
static ErlNifResourceType *loop_type;
static atomic_int ended_calls;

typedef struct {
    tokamak_loop *loop;
} loop_reference;

/* One question to the table, and its answer. */
typedef struct {
    enum { IDS, PUSH, RESERVE, UNRESERVE, TIE, UNTIE, PUSH_RESULT, POLL } what;
    tokamak_loop *loop;
    uint64_t number;
    uint32_t type;
    tokamak_payload payload;
    uint64_t timeout;
    ErlNifEnv *env;
    ERL_NIF_TERM term;
    int32_t status;
} question;

static void ended(void *context)
{
    atomic_fetch_add((atomic_int *)context, 1);
}

/* Copies events into a list of {Id, Code, Data} in the environment of the question. */
static void take(void *context, ErlNifEnv *env, const tokamak_event *events, size_t count)
{
    question *q = context;
    (void)env;
    q->term = enif_make_list(q->env, 0);
    while (count-- > 0) {
        ERL_NIF_TERM event = enif_make_tuple3(q->env, enif_make_uint64(q->env, events[count].callback_id),
                                              enif_make_uint(q->env, events[count].type),
                                              enif_make_copy(q->env, events[count].data));
        q->term = enif_make_list_cell(q->env, event, q->term);
    }
}

static void *ask(void *argument)
{
    question *q = argument;
    switch (q->what) {
    case IDS:
        q->number = table->id_reserve(q->number);
        break;
    case PUSH:
        q->status = table->loop_push(q->loop, q->number, q->type, &q->payload, q->timeout);
        break;
    case RESERVE:
        q->status = table->loop_reserve(q->loop, q->number);
        break;
    case UNRESERVE:
        table->loop_unreserve(q->loop, q->number);
        break;
    case TIE:
        q->number = table->loop_tie(q->loop, ended, &ended_calls);
        break;
    case UNTIE:
        q->number = table->loop_untie(q->loop, q->number) == &ended_calls;
        break;
    case POLL:
        q->status = table->loop_poll(q->loop, q->timeout, take, q);
        break;
    case PUSH_RESULT: {
        tokamak_result result = {q->number, q->term, q->status};
        table->loop_push_results(q->loop, q->env, &result, 1);
        break;
    }
    }
    return NULL;
}

/* On a new thread; dirty NIFs may wait for it. */
static int ask_from_thread(question *q)
{
    pthread_t thread;
    return pthread_create(&thread, NULL, ask, q) == 0 && pthread_join(thread, NULL) == 0;
}

static ERL_NIF_TERM atom(ErlNifEnv *env, const char *name)
{
    return enif_make_atom(env, name);
}

static ERL_NIF_TERM status(ErlNifEnv *env, int32_t code)
{
    static const char *names[] = {"ok",   "overloaded", "closed",   "bad_argument", "failed",
                                  "busy", "timed_out",  "not_supported"};
    return atom(env, code >= 0 && code <= 7 ? names[code] : "unknown");
}

static int get_loop(ErlNifEnv *env, ERL_NIF_TERM term, question *q)
{
    loop_reference *reference;
    if (table == NULL || !enif_get_resource(env, term, loop_type, (void **)&reference))
        return 0;
    q->loop = reference->loop;
    return 1;
}

static int get_u64(ErlNifEnv *env, ERL_NIF_TERM term, uint64_t *number)
{
    ErlNifUInt64 value;
    int got = enif_get_uint64(env, term, &value);
    *number = value;
    return got;
}

/* fetch(Term, Version) -> ok | refused */
static ERL_NIF_TERM fetch(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    unsigned version;
    (void)argc;
    if (!enif_get_uint(env, argv[1], &version))
        return enif_make_badarg(env);
    tokamak_table_request request = {version, NULL};
    int failed = enif_dynamic_resource_call(env, atom(env, "tokamak_nif"), atom(env, "tokamak_table"), argv[0],
                                            &request);
    if (failed || request.table == NULL)
        return atom(env, "refused");
    if (request.table->version != TOKAMAK_TABLE_VERSION || request.table->size < sizeof(tokamak_table))
        return atom(env, "another_table");
    table = request.table;
    return atom(env, "ok");
}

/* retain(Loop) -> Reference | not_a_loop */
static ERL_NIF_TERM retain(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc;
    tokamak_loop *loop = table->loop_retain(env, argv[0]);
    if (loop == NULL)
        return atom(env, "not_a_loop");
    loop_reference *reference = enif_alloc_resource(loop_type, sizeof *reference);
    reference->loop = loop;
    ERL_NIF_TERM term = enif_make_resource(env, reference);
    enif_release_resource(reference);
    return term;
}

static void release(ErlNifEnv *env, void *object)
{
    (void)env;
    table->loop_release(((loop_reference *)object)->loop);
}

/* ids(Count) -> First | 0 */
static ERL_NIF_TERM ids(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    question q = {.what = IDS};
    (void)argc;
    if (!get_u64(env, argv[0], &q.number) || !ask_from_thread(&q))
        return enif_make_badarg(env);
    return enif_make_uint64(env, q.number);
}

/* push(Reference, Id, Type, undefined | Integer | Binary | bad, Timeout) -> Status */
static ERL_NIF_TERM push(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    question q = {.what = PUSH};
    ErlNifSInt64 integer;
    ErlNifBinary bytes;
    (void)argc;
    if (!get_loop(env, argv[0], &q) || !get_u64(env, argv[1], &q.number) ||
        !enif_get_uint(env, argv[2], &q.type) || !get_u64(env, argv[4], &q.timeout))
        return enif_make_badarg(env);
    if (enif_get_int64(env, argv[3], &integer)) {
        q.payload.kind = TOKAMAK_PAYLOAD_INTEGER;
        q.payload.integer = integer;
    } else if (enif_inspect_binary(env, argv[3], &bytes)) {
        q.payload.kind = TOKAMAK_PAYLOAD_BYTES;
        q.payload.bytes = bytes.data;
        q.payload.length = bytes.size;
    } else if (enif_is_identical(argv[3], atom(env, "bad"))) {
        q.payload.kind = 99;
    }
    return ask_from_thread(&q) ? status(env, q.status) : enif_make_badarg(env);
}

/* reserve(Reference, Count) -> Status */
static ERL_NIF_TERM reserve(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    question q = {.what = RESERVE};
    (void)argc;
    if (!get_loop(env, argv[0], &q) || !get_u64(env, argv[1], &q.number) || !ask_from_thread(&q))
        return enif_make_badarg(env);
    return status(env, q.status);
}

/* unreserve(Reference, Count) -> ok */
static ERL_NIF_TERM unreserve(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    question q = {.what = UNRESERVE};
    (void)argc;
    if (!get_loop(env, argv[0], &q) || !get_u64(env, argv[1], &q.number) || !ask_from_thread(&q))
        return enif_make_badarg(env);
    return atom(env, "ok");
}

/* tie(Reference) -> Tie */
static ERL_NIF_TERM tie(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    question q = {.what = TIE};
    (void)argc;
    if (!get_loop(env, argv[0], &q) || !ask_from_thread(&q))
        return enif_make_badarg(env);
    return enif_make_uint64(env, q.number);
}

/* untie(Reference, Tie) -> untied | called */
static ERL_NIF_TERM untie(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    question q = {.what = UNTIE};
    (void)argc;
    if (!get_loop(env, argv[0], &q) || !get_u64(env, argv[1], &q.number) || !ask_from_thread(&q))
        return enif_make_badarg(env);
    return atom(env, q.number ? "untied" : "called");
}

/* How often an end was told since the library was loaded. */
static ERL_NIF_TERM ends(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc;
    (void)argv;
    return enif_make_int(env, atomic_load(&ended_calls));
}

/* push_result(Reference, Id, IsError, Term) -> ok */
static ERL_NIF_TERM push_result(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    question q = {.what = PUSH_RESULT};
    (void)argc;
    if (!get_loop(env, argv[0], &q) || !get_u64(env, argv[1], &q.number))
        return enif_make_badarg(env);
    q.status = enif_is_identical(argv[2], atom(env, "true"));
    q.env = enif_alloc_env();
    q.term = enif_make_copy(q.env, argv[3]);
    return ask_from_thread(&q) ? atom(env, "ok") : enif_make_badarg(env);
}

/* poll(Reference, Timeout) -> [{Id, Code, Data}] | Status */
static ERL_NIF_TERM poll(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    question q = {.what = POLL};
    (void)argc;
    if (!get_loop(env, argv[0], &q) || !get_u64(env, argv[1], &q.timeout))
        return enif_make_badarg(env);
    q.env = enif_alloc_env();
    int asked = ask_from_thread(&q);
    ERL_NIF_TERM found = !asked                    ? enif_make_badarg(env)
                         : q.status == TOKAMAK_OK  ? enif_make_copy(env, q.term)
                                                   : status(env, q.status);
    enif_free_env(q.env);
    return found;
}

static int load(ErlNifEnv *env, void **private_data, ERL_NIF_TERM info)
{
    (void)private_data;
    (void)info;
    loop_type = enif_open_resource_type(env, NULL, "table_user_loop", release, ERL_NIF_RT_CREATE, NULL);
    return loop_type == NULL;
}

static ErlNifFunc functions[] = {
    {"fetch", 2, fetch, 0},
    {"retain", 1, retain, 0},
    {"ids", 1, ids, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"push", 5, push, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"reserve", 2, reserve, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"unreserve", 2, unreserve, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"tie", 1, tie, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"untie", 2, untie, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"ends", 0, ends, 0},
    {"push_result", 4, push_result, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"poll", 2, poll, ERL_NIF_DIRTY_JOB_IO_BOUND},
};

ERL_NIF_INIT(table_user, functions, load, NULL, NULL, NULL)
