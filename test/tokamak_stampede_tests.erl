%% SPDX-License-Identifier: Apache-2.0
%% A million calls from a thousand processes that are killed at random: nothing is left of them.
-module(tokamak_stampede_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, until/1]).

-define(CALLS, 1000000).
-define(CALLERS, 1000).
%% So many calls a caller makes before it is replaced, if nobody kills it.
-define(ROUND, 1000).
-define(TIMEOUT, 300).

stampede_test_() ->
    call_fixture:tests([{timeout, ?TIMEOUT, fun nothing_is_left_of_a_million_calls_whose_callers_are_killed_at_random/0}]).

nothing_is_left_of_a_million_calls_whose_callers_are_killed_at_random() ->
    Counter = counters:new(2, [write_concurrency]),
    stampede(Counter, 200000),
    counters:put(Counter, 1, 0),
    [Memory, Fds, Threads] = settled(),
    stampede(Counter, ?CALLS),
    ?assert(counters:get(Counter, 2) > ?CALLERS),
    [MemoryAfter, FdsAfter, ThreadsAfter] = settled(),
    ?assertEqual(Fds, FdsAfter),
    ?assert(ThreadsAfter - Threads =< 64),
    %% Allocators keep some; a million calls that each left what a call holds would be a quarter of a gigabyte.
    ?assert(MemoryAfter - Memory < 128, {Memory, MemoryAfter}).

%% Runs callers, `?CALLERS' at a time, and kills them at random, until so many calls were made.
stampede(Counter, Calls) ->
    Callers = maps:from_list([caller(Counter) || _ <- lists:seq(1, ?CALLERS)]),
    kill_at_random(Counter, Calls, Callers, 0).

caller(Counter) ->
    {Pid, Monitor} = spawn_monitor(fun() -> calls(Counter, ?ROUND) end),
    {Monitor, Pid}.

kill_at_random(Counter, Calls, Callers, Turn) ->
    case counters:get(Counter, 1) >= Calls of
        true ->
            maps:foreach(fun(_, Pid) -> exit(Pid, kill) end, Callers),
            await_deaths(Callers);
        false ->
            Turn rem 10 =:= 0 andalso kill_some(Callers),
            kill_at_random(Counter, Calls, replace_dead(Counter, Callers), Turn + 1)
    end.

kill_some(Callers) ->
    [exit(Pid, kill) || Pid <- maps:values(Callers), rand:uniform(20) =:= 1].

replace_dead(Counter, Callers) ->
    receive
        {'DOWN', Monitor, process, _, _} ->
            counters:add(Counter, 2, 1),
            {NewMonitor, Pid} = caller(Counter),
            replace_dead(Counter, maps:put(NewMonitor, Pid, maps:remove(Monitor, Callers)))
    after 1 -> Callers
    end.

await_deaths(Callers) when map_size(Callers) =:= 0 ->
    ok;
await_deaths(Callers) ->
    receive
        {'DOWN', Monitor, process, _, _} -> await_deaths(maps:remove(Monitor, Callers))
    end.

calls(_Counter, 0) ->
    ok;
calls(Counter, Left) ->
    counters:add(Counter, 1, 1),
    some_call(rand:uniform(12)),
    calls(Counter, Left - 1).

some_call(1) -> tokamak:call(op(never), [0], #{timeout => 1});
some_call(2) -> tokamak:async(op(never), [0]);
some_call(3) -> tokamak:call(op(later), [1, rand:uniform(1000)]);
some_call(4) -> tokamak:gather([{op(later_in_runtime), [N, 10]} || N <- [1, 2, 3]]);
some_call(5) -> tokamak:next(tokamak:stream(op(numbers), [0]));
some_call(6) -> tokamak:push(tokamak:open(op(takes_nothing), [0]), 1);
some_call(7) -> tokamak:call(op(panics), [<<"p">>]);
some_call(8) -> tokamak:cancel(tokamak:async(op(later_in_runtime), [1, rand:uniform(100)]));
some_call(9) -> tokamak:call(op(block), [0, 0]);
some_call(_) -> tokamak:call(op(later_in_runtime), [<<"a result">>, 0]).

%% What the operating system's process holds when nothing is going on.
settled() ->
    until(fun() ->
        #{in_flight := InFlight, owners := Owners, fds := Fds, engines := Engines} = tokamak:stats(),
        Tasks = lists:sum([Count || #{tasks := Count} <- maps:values(Engines)]),
        {InFlight, Tasks, Fds} =:= {0, 0, 0} andalso Owners =< 5
    end),
    [erlang:garbage_collect(Pid) || Pid <- processes()],
    [call_fixture:resident_mib(), entries("/proc/self/fd"), entries("/proc/self/task")].

entries(Dir) ->
    {ok, Names} = file:list_dir(Dir),
    length(Names).
