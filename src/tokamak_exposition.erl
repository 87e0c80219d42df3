%% SPDX-License-Identifier: Apache-2.0
%% @doc Counters as text for Prometheus: its exposition format, version 0.0.4.
%%
%% Every metric is a row of a table here: name, type, help, and a list of its values with their labels. Times
%% are seconds, in buckets that double.
%% @private
-module(tokamak_exposition).

-export([text/1]).

-define(NANOSECONDS, 1.0e9).
%% The buckets of histograms: from 2^6 to 2^36 nanoseconds, 64 ns to 69 s.
-define(FIRST_BUCKET, 6).
-define(LAST_BUCKET, 36).

-type labels() :: [{atom(), atom() | binary()}].
-type value() :: {labels(), number() | tokamak_stats:timed()}.
-type metric() :: {Name :: string(), counter | gauge | histogram, Help :: string(), [value()]}.

%% @doc The text of what `tokamak_stats:stats/0' returns.
-spec text(map()) -> iolist().
text(Stats) ->
    [metric(Metric) || Metric <- global(Stats) ++ calls(Stats) ++ runtimes(Stats) ++ pools(Stats) ++ loops(Stats)].

-spec global(map()) -> [metric()].
global(Stats) ->
    #{fds := Fds, owners := Owners, subprocesses := Open, alarms := Alarms} = Stats,
    #{subprocess_totals := #{started := Started} = Totals, progress := Progress} = Stats,
    [
        {"alarm", gauge, "1 while the alarm is set.",
            [{[{alarm, Alarm}], flag(lists:member(Alarm, Alarms))} || Alarm <- [overload, starvation]]},
        {"fds", gauge, "Open descriptors.", [{[], Fds}]},
        {"owners", gauge, "Processes that own something.", [{[], Owners}]},
        {"subprocesses", gauge, "Subprocesses whose end was not taken.", [{[], Open}]},
        {"subprocesses_started_total", counter, "Subprocesses that were started.", [{[], Started}]},
        {"subprocess_bytes_total", counter, "Bytes through the pipes of subprocesses.",
            [{[{stream, To}], maps:get(Key, Totals)} || {To, Key} <- [{stdin, written}, {stdout, stdout}, {stderr, stderr}]]},
        {"subprocess_busy_polls_total", counter, "Looks before a sleep, by whether they found something.", looks(Totals)},
        {"progress_keys", gauge, "Keys of progress that are not done.", [{[], maps:get(keys, Progress)}]},
        {"progress_reports_total", counter, "Reports of progress, shown or held back.",
            [{[{result, Key}], maps:get(Key, Progress)} || Key <- [shown, held_back]]}
    ].

looks(#{busy_polls := Looks, busy_polls_in_vain := InVain}) ->
    [{[{result, found}], Looks - InVain}, {[{result, in_vain}], InVain}].

flag(true) -> 1;
flag(false) -> 0.

-spec calls(map()) -> [metric()].
calls(#{engines := Engines}) ->
    Calls = [
        {[{engine, Engine}, {kind, Kind}], Timed}
     || {Engine, #{calls := Kinds}} <- maps:to_list(Engines), {Kind, Timed} <- maps:to_list(Kinds)
    ],
    [
        {"calls_total", counter, "Calls that ended; of kind eager, an estimate.",
            [{Labels, Count} || {Labels, {Count, _Sample, _Times}} <- Calls]},
        {"call_duration_seconds", histogram,
            "How long calls took; of kind eager one in 64 is timed, of kind async one in 8.", Calls}
    ].

-spec runtimes(map()) -> [metric()].
runtimes(#{engines := Engines}) ->
    Running = [{[{engine, Engine}], Runtime} || {Engine, #{calls := _} = Runtime} <- maps:to_list(Engines)],
    Of = fun(Key) -> [{Labels, maps:get(Key, Runtime)} || {Labels, Runtime} <- Running] end,
    Seconds = fun(Key) -> [{Labels, Time / ?NANOSECONDS} || {Labels, Time} <- Of(Key)] end,
    Slow = [
        {Labels ++ [{operation, unicode:characters_to_binary(Name)}], Count}
     || {Labels, Polls} <- Of(slow_polls), {Name, Count} <- Polls
    ],
    [
        {"calls_in_flight", gauge, "Calls that are running.", Of(in_flight)},
        {"calls_in_flight_limit", gauge, "Calls that may run at once.", Of(max_in_flight)},
        {"calls_refused_total", counter, "Calls that were refused: too many were running.", Of(refused)},
        {"calls_in_batches_total", counter, "Calls made as parts of gather and submit.", Of(parts)},
        {"slow_polls_total", counter, "First polls of eager operations of over 1 ms.", Slow},
        {"workers", gauge, "Worker threads.", Of(workers)},
        {"workers_parked", gauge, "Worker threads that have nothing to do.", Of(parked)},
        {"worker_busy_seconds_total", counter, "Time that workers were busy, together.", Seconds(busy_time)},
        {"worker_parks_total", counter, "How often workers went to sleep.", Of(parks)},
        {"runtime_uptime_seconds", gauge, "Time since the runtime started.", Seconds(uptime)},
        {"runtime_queue_depth", gauge, "Tasks in the queue of all workers.", Of(queue_depth)},
        {"runtime_tasks", gauge, "Tasks that are alive.", Of(tasks)},
        {"blocking_calls", gauge, "Blocking calls that are running.", Of(blocking_running)},
        {"blocking_calls_limit", gauge, "Blocking calls that may run at once.", Of(max_blocking_threads)}
    ].

-spec pools(map()) -> [metric()].
pools(#{engines := Engines}) ->
    Pools = [{[{engine, Engine}], Pools} || {Engine, #{pools := Pools}} <- maps:to_list(Engines)],
    Of = fun(Key) -> [{Labels, maps:get(Key, Totals)} || {Labels, Totals} <- Pools] end,
    Items = [
        {Labels ++ [{result, Result}], maps:get(Result, Totals)}
     || {Labels, Totals} <- Pools, Result <- [succeeded, failed, duplicates, refused]
    ],
    [
        {"pools", gauge, "Runs of pools that go on.", Of(running)},
        {"pools_started_total", counter, "Runs of pools.", Of(started)},
        {"pool_items_dispatched_total", counter, "Items taken into pools.", Of(dispatched)},
        {"pool_items_total", counter, "Items of pools, by what became of them.", Items}
    ].

-spec loops(map()) -> [metric()].
loops(#{loops := Loops, loop_totals := Totals, wake_to_drain := Wakes}) ->
    Of = fun(Key) -> [{[], maps:get(Key, Totals)}] end,
    [
        {"loops", gauge, "Open loops.", [{[], Loops}]},
        {"loop_events_queued", gauge, "Events let in and not yet delivered.", Of(queued)},
        {"loop_queue_high_water", gauge, "The most events that ever waited in a loop that is open.", Of(high_water_mark)},
        {"loop_timers", gauge, "Timers that are set.", Of(timers)},
        {"loop_readers", gauge, "Descriptors watched for reading.", Of(readers)},
        {"loop_writers", gauge, "Descriptors watched for writing.", Of(writers)},
        {"loop_handlers", gauge, "Registered handlers.", Of(handlers)},
        {"loop_events_total", counter, "Events let in.", Of(pushed)},
        {"loop_events_delivered_total", counter, "Events delivered.", Of(drained)},
        {"loop_events_refused_total", counter, "Events and timers refused: a loop was full.", Of(refused)},
        {"loop_events_coalesced_total", counter, "Readiness that was pending already.", Of(coalesced)},
        {"loop_busy_polls_total", counter, "Looks before a sleep, by whether they found something.", looks(Totals)},
        {"loop_wakes_total", counter, "Wakes that were due.", Of(wakes)},
        {"loop_wake_to_drain_seconds", histogram, "From a wake to its drain; one wake in 8 is timed.", [{[], Wakes}]}
    ].

metric({_Name, _Type, _Help, []}) ->
    [];
metric({Short, Type, Help, Values}) ->
    Name = ["tokamak_", Short],
    [
        ["# HELP ", Name, $\s, Help, $\n],
        ["# TYPE ", Name, $\s, atom_to_list(Type), $\n]
        | [sample(Type, Name, Labels, Value) || {Labels, Value} <- Values]
    ].

sample(histogram, Name, Labels, {_Count, _Sample, {Sum, Buckets}}) ->
    All = lists:sum([Count || {_End, Count} <- Buckets]),
    [
        [line([Name, "_bucket"], Labels ++ [{le, Le}], Count) || {Le, Count} <- cumulated(Buckets)],
        line([Name, "_bucket"], Labels ++ [{le, <<"+Inf">>}], All),
        line([Name, "_sum"], Labels, Sum / ?NANOSECONDS),
        line([Name, "_count"], Labels, All)
    ];
sample(_Type, Name, Labels, Value) ->
    line(Name, Labels, Value).

%% Powers of two are ends of our buckets, too.
cumulated(Buckets) ->
    [
        {number(End / ?NANOSECONDS), lists:sum([Count || {BucketEnd, Count} <- Buckets, BucketEnd =< End])}
     || Power <- lists:seq(?FIRST_BUCKET, ?LAST_BUCKET), End <- [1 bsl Power]
    ].

line(Name, [], Value) ->
    [Name, $\s, number(Value), $\n];
line(Name, Labels, Value) ->
    [Name, ${, lists:join($,, [[atom_to_list(Key), "=\"", escape(Text), $"] || {Key, Text} <- Labels]), $}, $\s, number(Value), $\n].

number(Value) when is_integer(Value) -> integer_to_binary(Value);
number(Value) -> float_to_binary(Value, [short]).

escape(Atom) when is_atom(Atom) -> escape(atom_to_binary(Atom));
escape(Text) -> << <<(escaped(Char))/binary>> || <<Char>> <= Text >>.

escaped($\\) -> <<"\\\\">>;
escaped($") -> <<"\\\"">>;
escaped($\n) -> <<"\\n">>;
escaped(Char) -> <<Char>>.
