%% SPDX-License-Identifier: Apache-2.0
%% The alarms: set and cleared by their rules, through sasl's alarm_handler or the log, and nothing while idle.
-module(tokamak_alarms_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, until/1]).

-export([log/2]).

%% Milliseconds. Looks come as often.
-define(THRESHOLD, 50).

with_sasl_test_() ->
    {setup, fun start_sasl/0, fun(_) -> application:stop(sasl) end,
        call_fixture:tests(#{starvation_threshold => ?THRESHOLD, max_in_flight => 8}, [
            fun starvation_is_set_while_operations_hold_their_workers/0,
            fun workers_that_are_busy_with_short_work_are_not_starved/0,
            fun overload_is_set_when_calls_are_refused/0,
            fun overload_stays_set_while_nearly_as_many_calls_run_as_may/0,
            fun overload_is_set_when_a_loop_refuses_events/0,
            fun alarms_are_cleared_when_the_application_stops/0
        ])}.

without_sasl_test_() ->
    call_fixture:tests(#{starvation_threshold => ?THRESHOLD, max_in_flight => 8}, [
        fun without_sasl_alarms_are_logged/0,
        fun nobody_looks_while_nothing_is_in_flight/0,
        fun a_new_watcher_goes_on_where_the_old_one_died/0
    ]).

start_sasl() ->
    ok = application:load(sasl),
    ok = application:set_env(sasl, sasl_error_logger, false),
    ok = application:start(sasl).

starvation_is_set_while_operations_hold_their_workers() ->
    ?assertEqual([], set()),
    while_starved(fun() ->
        until(fun() -> set() =/= [] end),
        ?assertMatch([{{tokamak, starvation}, #{engine := tokamak_test_engine, threshold := ?THRESHOLD}}], set()),
        ?assertMatch(#{alarms := [starvation]}, tokamak:stats())
    end),
    until(fun() -> set() =:= [] end),
    ?assertMatch(#{alarms := []}, tokamak:stats()).

workers_that_are_busy_with_short_work_are_not_starved() ->
    End = erlang:monotonic_time(millisecond) + 6 * ?THRESHOLD,
    Callers = [spawn_monitor(fun() -> call_until(End) end) || _ <- [1, 2, 3, 4]],
    [receive {'DOWN', Monitor, process, Pid, normal} -> ok end || {Pid, Monitor} <- Callers],
    ?assertEqual([], set()).

call_until(End) ->
    {ok, _} = tokamak:call(op(hog), [1]),
    case erlang:monotonic_time(millisecond) < End of
        true -> call_until(End);
        false -> ok
    end.

overload_is_set_when_calls_are_refused() ->
    Refs = [tokamak:async(sleep, [60000]) || _ <- lists:seq(1, 8)],
    {error, overloaded} = tokamak:call(sleep, [0]),
    until(fun() -> set() =/= [] end),
    ?assertMatch([{{tokamak, overload}, #{engine := tokamak_nif, refused_calls := 1, refused_events := 0}}], set()),
    lists:foreach(fun tokamak:cancel/1, Refs),
    until(fun() -> set() =:= [] end).

overload_stays_set_while_nearly_as_many_calls_run_as_may() ->
    Refs = [tokamak:async(sleep, [60000]) || _ <- lists:seq(1, 8)],
    {error, overloaded} = tokamak:call(sleep, [0]),
    until(fun() -> set() =/= [] end),
    %% Seven of eight run; nothing is refused any more.
    [One | Rest] = Refs,
    ok = tokamak:cancel(One),
    ok = tokamak_test:nothing_comes(8 * ?THRESHOLD),
    ?assertMatch([{{tokamak, overload}, _}], set()),
    lists:foreach(fun tokamak:cancel/1, Rest),
    until(fun() -> set() =:= [] end).

overload_is_set_when_a_loop_refuses_events() ->
    {ok, Loop} = tokamak_loop:new(#{max_queue => 1}),
    ok = tokamak_loop:post(Loop, 1, user, first),
    {error, overloaded} = tokamak_loop:post(Loop, 1, user, second),
    until(fun() -> set() =/= [] end),
    ?assertMatch([{{tokamak, overload}, #{refused_calls := 0, refused_events := 1}}], set()),
    until(fun() -> set() =:= [] end),
    ok = tokamak_loop:destroy(Loop).

alarms_are_cleared_when_the_application_stops() ->
    {ok, Loop} = tokamak_loop:new(#{max_queue => 1}),
    ok = tokamak_loop:post(Loop, 1, user, first),
    {error, overloaded} = tokamak_loop:post(Loop, 1, user, second),
    until(fun() -> set() =/= [] end),
    ok = application:stop(tokamak),
    until(fun() -> set() =:= [] end),
    {ok, _} = application:ensure_all_started(tokamak).

%% Ours; a machine may have alarms of its own.
set() ->
    [Alarm || {{tokamak, _}, _} = Alarm <- alarm_handler:get_alarms()].

without_sasl_alarms_are_logged() ->
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => #{to => self()}}),
    ok = logger:set_module_level(tokamak_alarms, notice),
    {ok, Loop} = tokamak_loop:new(#{max_queue => 1}),
    ok = tokamak_loop:post(Loop, 1, user, first),
    {error, overloaded} = tokamak_loop:post(Loop, 1, user, second),
    ?assertMatch({warning, #{domain := [tokamak], alarm := {tokamak, overload}}}, logged()),
    ?assertMatch({notice, #{domain := [tokamak], alarm := {tokamak, overload}}}, logged()),
    ok = tokamak_loop:destroy(Loop),
    ok = logger:unset_module_level(tokamak_alarms),
    ok = logger:remove_handler(?MODULE).

%% A handler of logger.
log(#{level := Level, meta := Meta}, #{config := #{to := Pid}}) ->
    Pid ! {logged, Level, Meta}.

logged() ->
    receive
        {logged, Level, Meta} -> {Level, Meta}
    after 5000 -> error(nothing_logged)
    end.

nobody_looks_while_nothing_is_in_flight() ->
    {ok, _} = tokamak:call(sleep, [3 * ?THRESHOLD]),
    until(fun is_asleep/0),
    Watcher = whereis(tokamak_alarms),
    1 = erlang:trace(Watcher, true, ['receive']),
    ok = tokamak_test:nothing_comes(10 * ?THRESHOLD),
    Ref = tokamak:async(sleep, [60000]),
    receive
        {trace, Watcher, 'receive', {active, tokamak_nif}} -> ok
    after 5000 -> error(not_told)
    end,
    receive
        {trace, Watcher, 'receive', {timeout, _, look}} -> ok
    after 5000 -> error(does_not_look)
    end,
    1 = erlang:trace(Watcher, false, ['receive']),
    ok = tokamak:cancel(Ref),
    forget_trace().

%% It has no timer.
is_asleep() ->
    element(4, sys:get_state(tokamak_alarms)) =:= none.

forget_trace() ->
    receive
        {trace, _, _, _} -> forget_trace()
    after 0 -> ok
    end.

a_new_watcher_goes_on_where_the_old_one_died() ->
    Old = whereis(tokamak_alarms),
    ok = tokamak_test:kill(Old),
    until(fun() -> is_pid(whereis(tokamak_alarms)) end),
    while_starved(fun() -> until(fun() -> tokamak_alarms:set() =:= [starvation] end) end),
    until(fun() -> tokamak_alarms:set() =:= [] end).

%% Runs a function while operations hold their workers, as many as the engine has, however long that takes.
while_starved(Run) ->
    Hogs = [call_fixture:started(fun hog_until_told/0) || _ <- [1, 2]],
    Run(),
    [Hog ! stop || Hog <- Hogs],
    [ok = call_fixture:result(Hog) || Hog <- Hogs].

hog_until_told() ->
    {ok, _} = tokamak:call(op(hog), [10 * ?THRESHOLD], #{timeout => infinity}),
    receive
        stop -> ok
    after 0 -> hog_until_told()
    end.
