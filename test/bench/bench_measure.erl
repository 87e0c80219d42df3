%% SPDX-License-Identifier: Apache-2.0
%% @doc Measures subjects: each in a fresh process, turn by turn, after one turn to warm up.
%%
%% What a subject measures reaches from the first event it asks for to the last one its consumer has
%% counted. Processes, threads and descriptors are made before, and no sleep is inside, unless the
%% subject is a timer that has to wait.
-module(bench_measure).

-export([compare/2, compare/3, run/1, scaled/2]).
-export([timed/2, latencies/2, turns/2, time/1]).
-export([rate/1, wall_cost/1, cpu_cost/1, median/1, percentile/2, pooled/1, usage/1]).

-export_type([sample/0, subject/0, measurement/0]).

-type sample() :: #{
    count := pos_integer(),
    wall := pos_integer(),
    latencies => [integer()],
    usage := bench_system:usage()
}.
%% `wall' and latencies are nanoseconds.
-type subject() :: {Key :: term(), fun(() -> sample())}.
-type measurement() :: [sample()].

%% Nothing here takes nearly as long: something got lost.
-define(TIMEOUT, 120000).

%% @equiv compare(Subjects, Options, 1)
-spec compare([subject()], tokamak_bench:options()) -> #{term() => measurement()}.
compare(Subjects, Options) ->
    compare(Subjects, Options, 1).

%% @doc Measures every subject as often as the options say, in turns, so that what else goes on in the
%% machine meets them all alike.
-spec compare([subject()], tokamak_bench:options(), WarmUps :: non_neg_integer()) ->
    #{term() => measurement()}.
compare(Subjects, #{runs := Runs}, WarmUps) ->
    _ = [run(Fun) || _ <- lists:seq(1, WarmUps), {_Key, Fun} <- Subjects],
    Turns = [{Key, run(Fun)} || _ <- lists:seq(1, Runs), {Key, Fun} <- Subjects],
    maps:from_list([{Key, [Sample || {K, Sample} <- Turns, K =:= Key]} || {Key, _} <- Subjects]).

%% @doc A number of events, fewer for `--quick'.
-spec scaled(pos_integer(), tokamak_bench:options()) -> pos_integer().
scaled(Count, #{scale := Scale}) ->
    max(1, round(Count * Scale)).

%% @doc Runs a subject once, in a fresh process.
%%
%% The mailbox is off-heap on both sides: messages by the hundred thousand are dearer without, most of
%% all for the baselines.
-spec run(fun(() -> Result)) -> Result.
run(Fun) ->
    Descriptors = bench_system:descriptors(),
    {Pid, Monitor} = spawn_opt(
        fun() -> exit({measured, Fun()}) end, [monitor, {message_queue_data, off_heap}]
    ),
    receive
        {'DOWN', Monitor, process, Pid, {measured, Sample}} ->
            wait_for_descriptors(Descriptors, erlang:monotonic_time(millisecond) + ?TIMEOUT),
            Sample;
        {'DOWN', Monitor, process, Pid, Reason} ->
            error(Reason)
    after ?TIMEOUT -> error({timeout, process_info(Pid)})
    end.

%% What the last run left is closed behind its back; the next one needs the descriptors, and the rest.
wait_for_descriptors(Before, Deadline) ->
    case bench_system:descriptors() of
        Now when Now =< Before ->
            ok;
        Now ->
            true = erlang:monotonic_time(millisecond) < Deadline orelse error({left_open, Now - Before}),
            receive after 5 -> wait_for_descriptors(Before, Deadline) end
    end.

%% @doc Runs a function that returns how much it counted, and fails if that is not what was expected.
-spec timed(pos_integer(), fun(() -> non_neg_integer())) -> sample().
timed(Expected, Fun) ->
    {Usage, Wall, Counted} = used(Fun),
    case Counted of
        Expected -> #{count => Counted, wall => Wall, usage => Usage};
        _ -> error({counted, Counted, expected, Expected})
    end.

%% @doc Runs a function that returns a list of nanoseconds.
-spec latencies(pos_integer(), fun(() -> [integer()])) -> sample().
latencies(Expected, Fun) ->
    {Usage, Wall, Latencies} = used(Fun),
    case length(Latencies) of
        Expected -> #{count => Expected, wall => Wall, usage => Usage, latencies => Latencies};
        Counted -> error({counted, Counted, expected, Expected})
    end.

%% @doc Takes so many turns, one after the other, and times each.
-spec turns(pos_integer(), fun(() -> term())) -> sample().
turns(Count, Turn) ->
    latencies(Count, fun() -> [time(Turn) || _ <- lists:seq(1, Count)] end).

%% @doc The nanoseconds that a turn takes.
-spec time(fun(() -> term())) -> non_neg_integer().
time(Turn) ->
    Start = erlang:monotonic_time(nanosecond),
    _ = Turn(),
    erlang:monotonic_time(nanosecond) - Start.

used(Fun) ->
    Before = bench_system:usage(),
    Start = erlang:monotonic_time(nanosecond),
    Result = Fun(),
    Wall = erlang:monotonic_time(nanosecond) - Start,
    {bench_system:used_since(Before), Wall, Result}.

%% @doc Per second: the median of the runs.
-spec rate(measurement()) -> float().
rate(Samples) ->
    median([Count * 1.0e9 / Wall || #{count := Count, wall := Wall} <- Samples]).

%% @doc Nanoseconds each, on the wall's clock: the median of the runs.
-spec wall_cost(measurement()) -> float().
wall_cost(Samples) ->
    median([Wall / Count || #{count := Count, wall := Wall} <- Samples]).

%% @doc Nanoseconds of processor time each, of all threads: the median of the runs.
-spec cpu_cost(measurement()) -> float().
cpu_cost(Samples) ->
    median([
        (User + System) * 1000 / Count
     || #{count := Count, usage := #{user := User, system := System}} <- Samples
    ]).

%% @doc All latencies of all runs, sorted.
-spec pooled(measurement()) -> [integer()].
pooled(Samples) ->
    lists:sort(lists:append([Latencies || #{latencies := Latencies} <- Samples])).

%% @doc A percentile (0 to 100) of a sorted list, by nearest rank.
-spec percentile(number(), [number(), ...]) -> number().
percentile(Percent, Sorted) ->
    Rank = ceil(length(Sorted) * Percent / 100),
    lists:nth(max(1, Rank), Sorted).

%% @doc The median of numbers in any order.
-spec median([number(), ...]) -> number().
median(Values) ->
    Sorted = lists:sort(Values),
    Half = length(Sorted) div 2,
    case length(Sorted) rem 2 of
        1 -> lists:nth(Half + 1, Sorted);
        0 -> (lists:nth(Half, Sorted) + lists:nth(Half + 1, Sorted)) / 2
    end.

%% @doc What one run used, as the mean of the runs; of memory, the most.
-spec usage(measurement()) -> bench_system:usage().
usage(Samples) ->
    Usages = [Usage || #{usage := Usage} <- Samples],
    Add = fun(Usage, Sums) ->
        maps:merge_with(
            fun
                (peak_rss, A, B) -> max(A, B);
                (_, A, B) -> A + B
            end,
            Usage,
            Sums
        )
    end,
    Mean = fun
        (peak_rss, Most) -> Most;
        (_, Sum) -> Sum div length(Usages)
    end,
    maps:map(Mean, lists:foldl(Add, hd(Usages), tl(Usages))).
