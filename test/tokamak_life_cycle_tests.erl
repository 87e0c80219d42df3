%% SPDX-License-Identifier: Apache-2.0
%% The application stops and starts under load: whoever uses it is told once and in time, and nothing is left.
-module(tokamak_life_cycle_tests).

-include_lib("eunit/include/eunit.hrl").

-export([restart/1, hurry/1, stop_patiently/0, stop_while_held/0]).

-import(tokamak_test, [quietly/1]).

%% tokamak_app_tests does it a thousand times with loops alone.
-define(ROUNDS, 200).
%% As many fill what allocators and the VM keep for later.
-define(WARM_UP, 20).
%% Memory that may be left: allocators keep some, more or less of it. A runtime that is left takes some 100 KB, and the
%% bytes of a single use that is never given back would be several MiB after so many rounds.
-define(MEMORY_LEFT, 16 * 1024 * 1024).
%% What a stop may take beyond drain_timeout, in milliseconds: children that do not end get some seconds.
-define(MARGIN, 20_000).
-define(DRAIN, 20).
%% Who start calls while it stops, and how long they wait for an end.
-define(CALLERS, 8).
-define(PATIENCE, 30_000).
%% How long an operation holds its worker, and after which time a stop would give a runtime up.
-define(HELD, 20_000).
-define(GRACE, 5000).

life_cycle_test_() ->
    tokamak_test:cases(400, [
        {"it stops and starts under load: every use ends once, and all is given back", fun restarts/0},
        {"a stop that gives no time: a call that starts at that moment ends, too", fun hurried_restarts/0},
        {"the longest time to end that may be configured is waited for", fun patient_stop/0},
        {"operations that hold all workers do not hold a stop, nor the ends of other calls", fun held/0}
    ]).

patient_stop() ->
    Peer = tokamak_test:start_peer(),
    ok = peer:call(Peer, ?MODULE, stop_patiently, [], 60_000),
    peer:stop(Peer).

%% @doc In the other VM.
stop_patiently() ->
    ok = application:load(tokamak),
    ok = application:set_env(tokamak, drain_timeout, 16#FFFFFFFF),
    ok = application:start(tokamak),
    Call = tokamak:async(sleep, [500]),
    State = tokamak_app:prep_stop(state),
    state = State,
    {ok, ok} = tokamak:await(Call, 0),
    quietly(fun() -> application:stop(tokamak) end).

held() ->
    Peer = tokamak_test:start_peer(),
    ok = peer:call(Peer, ?MODULE, stop_while_held, [], 60_000),
    peer:stop(Peer).

%% @doc In the other VM.
stop_while_held() ->
    Op = fun(Name) -> {tokamak_test_engine, Name} end,
    {ok, _} = application:ensure_all_started(tokamak),
    ok = application:set_env(tokamak, drain_timeout, ?DRAIN),
    Waiting = [tokamak:async(Op(never), [1]) || _ <- lists:seq(1, 10)],
    %% More than it has workers.
    Holding = [tokamak:async(Op(hog), [?HELD]) || _ <- lists:seq(1, 4)],
    tokamak_test:wait_for(0, fun() ->
        #{engines := #{tokamak_test_engine := #{parked := Parked}}} = tokamak:stats(),
        Parked
    end),
    {Microseconds, ok} = timer:tc(fun() -> quietly(fun() -> application:stop(tokamak) end) end),
    true = Microseconds div 1000 < ?GRACE,
    [{error, shutdown}] = lists:usort(tokamak:await_many(Waiting ++ Holding, 5000)),
    ok.

hurried_restarts() ->
    Peer = tokamak_test:start_peer(),
    ok = peer:call(Peer, ?MODULE, hurry, [?ROUNDS], 390_000),
    peer:stop(Peer).

restarts() ->
    Peer = tokamak_test:start_peer(),
    try
        Uses = peer:call(Peer, ?MODULE, restart, [?ROUNDS], 390_000),
        ?assertEqual([], [Part || {Part, {0, _}} <- maps:to_list(Uses)])
    after
        peer:stop(Peer)
    end.

%% @doc So many stops and starts, while all parts are used. For a VM of its own.
restart(Rounds) ->
    quietly(fun() -> restart_quietly(Rounds) end).

restart_quietly(Rounds) ->
    ok = application:load(tokamak),
    ok = application:set_env(tokamak, drain_timeout, ?DRAIN),
    _ = under_load(?WARM_UP),
    Before = settled_footprint(),
    Uses = under_load(Rounds),
    wait_for_footprint(Before),
    Uses.

%% @doc So many stops and starts that give calls no time to end, while processes do nothing but start calls.
hurry(Rounds) ->
    quietly(fun() ->
        ok = application:load(tokamak),
        ok = application:set_env(tokamak, drain_timeout, 0),
        _ = hurried(?WARM_UP),
        Before = settled_footprint(),
        _ = hurried(Rounds),
        wait_for_footprint(Before)
    end).

hurried(Rounds) ->
    ok = application:start(tokamak),
    Callers = [spawn_monitor(fun() -> start_calls() end) || _ <- lists:seq(1, ?CALLERS)],
    tokamak_test:repeat(Rounds, fun() -> round() end),
    _ = [Pid ! stop || {Pid, _} <- Callers],
    [receive {'DOWN', Monitor, process, Pid, Reason} -> normal = Reason end || {Pid, Monitor} <- Callers],
    ok = application:stop(tokamak).

start_calls() ->
    Ref = tokamak:async(sleep, [1]),
    receive
        {tokamak, Ref, End} -> true = lists:member(End, [{ok, ok}, {error, shutdown}])
    after ?PATIENCE -> exit(never_ended)
    end,
    receive
        stop -> ok
    after 0 -> start_calls()
    end.

under_load(Rounds) ->
    ok = application:start(tokamak),
    Load = tokamak_load:start(),
    tokamak_test:repeat(Rounds, fun() -> round() end),
    tokamak_load:stop(Load).

round() ->
    receive
    after rand:uniform(20) -> ok
    end,
    {Microseconds, ok} = timer:tc(fun() -> application:stop(tokamak) end),
    ?assert(Microseconds div 1000 < ?DRAIN + ?MARGIN),
    ok = application:start(tokamak).

%% Once what ends with the application has ended.
settled_footprint() ->
    tokamak_test:wait_for([], fun() -> [Name || {_, Name} <- tokamak_test:threads("tokamak-"), Name =/= "tokamak-janitor"] end),
    footprint().

footprint() ->
    _ = [erlang:garbage_collect(Pid) || Pid <- processes()],
    (tokamak_test:resources())#{
        processes => erlang:system_info(process_count),
        ets_tables => length(ets:all()),
        memory => tokamak_test:rss()
    }.

wait_for_footprint(Before) ->
    tokamak_test:wait_for([], fun() ->
        Now = footprint(),
        [{Key, N, now, M} || {Key, N} <- maps:to_list(Before), #{Key := M} <- [Now], M > N + may_be_left(Key)]
    end).

may_be_left(memory) -> ?MEMORY_LEFT;
may_be_left(_) -> 0.
