%% SPDX-License-Identifier: Apache-2.0
%% The native functions that every engine has: tokamak calls them, nobody else does.

-export([
    op_call/2,
    op_resume/2,
    op_call_with/3,
    op_async/2,
    op_cast/2,
    op_state/1,
    op_await/2,
    op_cancel/1,
    op_check/2,
    op_gather/4,
    op_gather_many/4,
    op_open/5,
    op_next/2,
    op_push/3,
    op_stop_waiting/2,
    op_close/1,
    op_submit/2,
    op_submit_many/2,
    op_pool_start/3,
    op_pool_add/2,
    op_pool_key/1,
    op_pool_close/1,
    op_pool_ack/2,
    op_pool_cancel/1,
    op_pool_stats/1,
    op_pool_step/3,
    op_pool_discover/3,
    op_pool_lost/3,
    op_list/0,
    op_stats/0,
    op_watch/0,
    op_look/1,
    op_start_runtime/4,
    op_stop_runtime/2
]).

-spec op_call(atom(), term()) -> term().
op_call(_Name, _Args) -> erlang:nif_error(not_loaded).

-spec op_resume(reference(), reference()) -> ok | badarg.
op_resume(_Handle, _Reference) -> erlang:nif_error(not_loaded).

-spec op_call_with(atom(), term(), reference()) -> term().
op_call_with(_Name, _Args, _Reference) -> erlang:nif_error(not_loaded).

-spec op_async(atom(), term()) -> term().
op_async(_Name, _Args) -> erlang:nif_error(not_loaded).

-spec op_cast(atom(), term()) -> term().
op_cast(_Name, _Args) -> erlang:nif_error(not_loaded).

-spec op_state(term()) -> running | sending | sent | cancelled | not_owner | badarg.
op_state(_Handle) -> erlang:nif_error(not_loaded).

-spec op_await(term(), reference()) -> running | sending | sent | cancelled | not_owner | badarg.
op_await(_Handle, _Reference) -> erlang:nif_error(not_loaded).

-spec op_cancel(term()) -> sending | sent | cancelled | not_owner | badarg.
op_cancel(_Handle) -> erlang:nif_error(not_loaded).

-spec op_check(atom(), term()) -> ok | {badarg, non_neg_integer(), binary()}.
op_check(_Name, _Args) -> erlang:nif_error(not_loaded).

-spec op_gather(term(), pos_integer(), fail_fast | settle, reference()) -> term().
op_gather(_Calls, _MaxConcurrency, _Mode, _Reference) -> erlang:nif_error(not_loaded).

%% On a dirty scheduler.
-spec op_gather_many(term(), pos_integer(), fail_fast | settle, reference()) -> term().
op_gather_many(_Calls, _MaxConcurrency, _Mode, _Reference) -> erlang:nif_error(not_loaded).

-spec op_open(stream | duplex, atom(), term(), pos_integer(), pos_integer()) -> term().
op_open(_Kind, _Name, _Args, _Window, _Inbox) -> erlang:nif_error(not_loaded).

-spec op_next(term(), reference() | undefined) -> term().
op_next(_Handle, _Reference) -> erlang:nif_error(not_loaded).

-spec op_push(term(), term(), reference() | undefined) -> term().
op_push(_Handle, _Item, _Reference) -> erlang:nif_error(not_loaded).

-spec op_stop_waiting(term(), next | push) -> boolean() | not_owner | badarg.
op_stop_waiting(_Handle, _What) -> erlang:nif_error(not_loaded).

-spec op_close(term()) -> ok | not_owner | badarg.
op_close(_Handle) -> erlang:nif_error(not_loaded).

-spec op_submit(term(), term()) -> term().
op_submit(_Loop, _Calls) -> erlang:nif_error(not_loaded).

%% On a dirty scheduler.
-spec op_submit_many(term(), term()) -> term().
op_submit_many(_Loop, _Calls) -> erlang:nif_error(not_loaded).

-spec op_pool_start(atom() | {pid(), reference()}, map(), reference() | undefined) -> reference() | badarg.
op_pool_start(_Handler, _Options, _Reference) -> erlang:nif_error(not_loaded).

-spec op_pool_add(term(), term()) -> ok | closed | badarg.
op_pool_add(_Pool, _Items) -> erlang:nif_error(not_loaded).

-spec op_pool_key(term()) -> [fun((term()) -> term())] | badarg.
op_pool_key(_Pool) -> erlang:nif_error(not_loaded).

-spec op_pool_close(term()) -> ok | badarg.
op_pool_close(_Pool) -> erlang:nif_error(not_loaded).

-spec op_pool_ack(term(), pos_integer()) -> ok | not_owner | badarg.
op_pool_ack(_Pool, _Batches) -> erlang:nif_error(not_loaded).

-spec op_pool_cancel(term()) -> sending | sent | cancelled | not_owner | badarg.
op_pool_cancel(_Pool) -> erlang:nif_error(not_loaded).

-spec op_pool_stats(term()) -> map() | badarg.
op_pool_stats(_Pool) -> erlang:nif_error(not_loaded).

-spec op_pool_step(term(), pos_integer(), none | {ok, {term(), list()}} | {error, term()}) ->
    {item, term()} | waiting | over | badarg.
op_pool_step(_Pool, _Worker, _End) -> erlang:nif_error(not_loaded).

-spec op_pool_discover(term(), pos_integer(), list()) -> ok | badarg.
op_pool_discover(_Pool, _Worker, _Items) -> erlang:nif_error(not_loaded).

-spec op_pool_lost(term(), pos_integer(), term()) -> ok | badarg.
op_pool_lost(_Pool, _Worker, _Reason) -> erlang:nif_error(not_loaded).

-spec op_list() -> [{atom(), non_neg_integer(), async | eager | blocking | stream | duplex}].
op_list() -> erlang:nif_error(not_loaded).

-spec op_stats() -> map() | shutdown.
op_stats() -> erlang:nif_error(not_loaded).

-spec op_watch() -> idle | active.
op_watch() -> erlang:nif_error(not_loaded).

-spec op_look(reference() | undefined) -> {free | busy, integer(), integer(), integer(), integer()} | shutdown.
op_look(_Reference) -> erlang:nif_error(not_loaded).

-spec op_start_runtime(pos_integer(), pos_integer(), pos_integer(), term()) ->
    ok | {error, {atom(), binary()}}.
op_start_runtime(_Workers, _Blocking, _InFlight, _Table) -> erlang:nif_error(not_loaded).

-spec op_stop_runtime(non_neg_integer(), reference()) -> ok.
op_stop_runtime(_DrainMilliseconds, _Reference) -> erlang:nif_error(not_loaded).
