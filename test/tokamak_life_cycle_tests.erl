%% SPDX-License-Identifier: Apache-2.0
%% The application stops and starts under load: whoever uses it is told once and in time, and nothing is left.
-module(tokamak_life_cycle_tests).

-include_lib("eunit/include/eunit.hrl").

-export([restart/1]).

-import(tokamak_test, [quietly/1]).

%% tokamak_app_tests does it a thousand times with loops alone.
-define(ROUNDS, 100).
%% Descriptors that may be left: on an overloaded machine one stop in some hundred keeps the three of a runtime.
%% A leak of every stop is many more.
-define(DESCRIPTORS_LEFT, 9).
%% What a stop may take beyond drain_timeout, in milliseconds: children that do not end get some seconds.
-define(MARGIN, 20_000).
-define(DRAIN, 20).

life_cycle_test_() ->
    tokamak_test:cases(180, [
        {"it stops and starts under load: every use ends once, and all is given back", fun restarts/0}
    ]).

restarts() ->
    Peer = tokamak_test:start_peer(),
    try
        Uses = peer:call(Peer, ?MODULE, restart, [?ROUNDS], 170_000),
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
    %% What the first round allocates is there to stay.
    _ = under_load(3),
    Before = settled_footprint(),
    Uses = under_load(Rounds),
    wait_for_footprint(Before),
    Uses.

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
        ets_tables => length(ets:all())
    }.

wait_for_footprint(Before) ->
    tokamak_test:wait_for([], fun() ->
        Now = footprint(),
        [{Key, N, now, M} || {Key, N} <- maps:to_list(Before), #{Key := M} <- [Now], M > N + may_be_left(Key)]
    end).

may_be_left(open_files) -> ?DESCRIPTORS_LEFT;
may_be_left(_) -> 0.
