%% SPDX-License-Identifier: Apache-2.0
%% What the tests of native calls share.
-module(call_fixture).

-export([tests/1, tests/2]).
-export([op/1, key/0, counted/1, live/1, until/1, elapsed/1, traced_messages/1]).
-export([calls_native/3, started/1, result/1, explanation/1, in_flight/0, collect/2, resident_mib/0]).

-include_lib("eunit/include/eunit.hrl").

-define(PATIENCE, 10000).
-define(TIMEOUT, 60).

%% @doc Tests of functions whose names are sentences, with the application started, and configured.
%%
%% A function may come with seconds, as `{timeout, Seconds, Function}'. Each runs in a process of its own, whose mailbox has to be empty at the end, as nothing may be left in flight.
tests(Functions) ->
    tests(#{}, Functions).

tests(Environment, Functions) ->
    {setup, fun() -> start(Environment) end, fun stop/1, [test(Function) || Function <- Functions]}.

test({timeout, Seconds, Function}) ->
    {name, Name} = erlang:fun_info(Function, name),
    Title = string:replace(atom_to_list(Name), "_", " ", all),
    {lists:flatten(Title), {timeout, Seconds, fun() -> tokamak_test:in_time(fun() -> isolated(Function) end) end}};
test(Function) ->
    test({timeout, ?TIMEOUT, Function}).

start(Environment) ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, none),
    _ = application:load(tokamak),
    maps:foreach(fun(Key, Value) -> ok = application:set_env(tokamak, Key, Value) end, Environment),
    {ok, _} = application:ensure_all_started(tokamak),
    Level.

stop(Level) ->
    _ = application:stop(tokamak),
    _ = application:unload(tokamak),
    ok = logger:set_primary_config(level, Level).

isolated(Function) ->
    {Pid, Monitor} = spawn_monitor(fun() -> run(Function) end),
    Self = self(),
    spawn(fun() -> kill_with(Self, Pid) end),
    receive
        {'DOWN', Monitor, process, Pid, normal} -> ok;
        {'DOWN', Monitor, process, Pid, {failed, Class, Reason, Stack}} -> erlang:raise(Class, Reason, Stack);
        {'DOWN', Monitor, process, Pid, Reason} -> error(Reason)
    end,
    until(fun() -> in_flight() =:= 0 end).

%% eunit kills a test that takes too long.
kill_with(Test, Pid) ->
    [OfTest, _] = [monitor(process, Either) || Either <- [Test, Pid]],
    receive
        {'DOWN', OfTest, process, Test, _} -> exit(Pid, kill);
        {'DOWN', _, process, Pid, _} -> ok
    end.

run(Function) ->
    try
        Function(),
        ?assertEqual({messages, []}, process_info(self(), messages))
    catch
        Class:Reason:Stack -> exit({failed, Class, Reason, Stack})
    end.

%% @doc An operation of the test engine.
op(Name) ->
    {tokamak_test_engine, Name}.

%% @doc A key to count by.
key() ->
    erlang:unique_integer([positive]).

%% @doc How many guards of a key live, the most that ever did at once, and how many there were.
counted(Key) ->
    {ok, Counts} = tokamak:call(op(counted), [Key]),
    Counts.

live(Key) ->
    element(1, counted(Key)).

%% @doc Waits until something holds.
until(Holds) ->
    tokamak_test:wait_until(Holds, ?PATIENCE).

%% @doc Milliseconds, and what came of it.
elapsed(Function) ->
    {Microseconds, Result} = timer:tc(Function),
    {Microseconds div 1000, Result}.

%% @doc Runs a function in a process that ends with the test.
started(Function) ->
    Self = self(),
    spawn_link(fun() -> Self ! {self(), Function()} end).

%% @doc What such a function returned.
result(Pid) ->
    receive
        {Pid, Result} -> Result
    end.

%% @doc How many messages a function had its process receive.
traced_messages(Function) ->
    Self = self(),
    Counter = spawn_link(fun() -> count_messages(0) end),
    1 = erlang:trace(Self, true, ['receive', {tracer, Counter}]),
    Function(),
    1 = erlang:trace(Self, false, ['receive']),
    Delivered = erlang:trace_delivered(Self),
    receive
        {trace_delivered, Self, Delivered} -> ok
    end,
    Counter ! {count, Self},
    receive
        {counted, Count} -> Count
    end.

count_messages(Count) ->
    receive
        {count, From} -> From ! {counted, Count};
        {trace, _, 'receive', _} -> count_messages(Count + 1)
    end.

%% @doc What a call that raises badarg says about its arguments.
explanation(Call) ->
    try Call() of
        Result -> error({no_badarg, Result})
    catch
        error:badarg:Stack ->
            [{_, _, _, Info} | _] = Stack,
            #{module := Module} = proplists:get_value(error_info, Info),
            maps:map(
                fun(_, Text) -> unicode:characters_to_list(Text) end,
                Module:format_error(badarg, Stack)
            )
    end.

in_flight() ->
    maps:get(in_flight, tokamak:stats()).

%% @doc Whether a function calls a native function of the library.
calls_native(Name, Arity, Function) ->
    Self = self(),
    Native = {tokamak_nif, Name, Arity},
    Caller = spawn_link(fun() ->
        receive
            start -> Self ! {self(), Function()}
        end
    end),
    1 = erlang:trace_pattern(Native, true, []),
    1 = erlang:trace(Caller, true, [call, arity]),
    Caller ! start,
    _ = result(Caller),
    1 = erlang:trace_pattern(Native, false, []),
    Delivered = erlang:trace_delivered(Caller),
    receive
        {trace_delivered, Caller, Delivered} -> ok
    end,
    receive
        {trace, Caller, call, Native} -> true
    after 0 -> false
    end.

%% @doc So many events of a loop, sorted.
collect(Loop, Count) ->
    collect(Loop, Count, []).

collect(_Loop, Count, Events) when Count =< 0 ->
    lists:sort(Events);
collect(Loop, Count, Events) ->
    [_ | _] = New = tokamak_loop:poll(Loop, ?PATIENCE),
    collect(Loop, Count - length(New), New ++ Events).

%% @doc The memory of the operating system's process.
resident_mib() ->
    {ok, Status} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = binary:split(Status, <<" ">>, [global]),
    binary_to_integer(Pages) * 4 div 1024.
