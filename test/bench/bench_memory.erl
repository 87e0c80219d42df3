%% SPDX-License-Identifier: Apache-2.0
%% @doc The VM's memory over the time of something that runs long. What is watched is not measured
%% otherwise: a process beside it reads the memory some hundred times a second.
-module(bench_memory).

-export([over_time/2, print/1]).
-export_type([memory/0]).

-type memory() :: #{atom() => bench_json:value()}.

-define(INTERVAL, 10).

%% @doc Runs each once, in a fresh process as benches do.
-spec over_time(iodata(), [{iodata(), fun(() -> term())}]) -> memory().
over_time(Name, Subjects) ->
    #{
        name => iolist_to_binary(Name),
        curves => [
            #{name => iolist_to_binary(Line), samples => watched(Fun)}
         || {Line, Fun} <- Subjects
        ]
    }.

%% Pairs of milliseconds since the start and kilobytes.
watched(Fun) ->
    Self = self(),
    Start = erlang:monotonic_time(microsecond),
    Watch = spawn_link(fun() -> watch(Self, Start, [sample(Start)]) end),
    _ = bench_measure:run(Fun),
    Watch ! stop,
    receive
        {Watch, Samples} -> Samples
    end.

watch(Self, Start, Samples) ->
    receive
        stop -> Self ! {self(), lists:reverse(Samples, [sample(Start)])}
    after ?INTERVAL -> watch(Self, Start, [sample(Start) | Samples])
    end.

sample(Start) ->
    [(erlang:monotonic_time(microsecond) - Start) / 1000, bench_system:resident()].

-spec print(memory()) -> ok.
print(#{name := Name, curves := Curves}) ->
    io:format("memory over time: ~ts~n", [Name]),
    lists:foreach(fun print_curve/1, Curves).

print_curve(#{name := Name, samples := [[_, First] | _] = Samples}) ->
    [Time, Last] = lists:last(Samples),
    Most = lists:max([Kilobytes || [_, Kilobytes] <- Samples]),
    io:format(
        "    ~-40ts ~7.1f MB before, ~7.1f at most, ~7.1f after ~.2f s~n",
        [Name, First / 1024, Most / 1024, Last / 1024, Time / 1000]
    ).
