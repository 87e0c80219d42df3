%% SPDX-License-Identifier: Apache-2.0
%% @doc A live view of what goes on, see {@link tokamak:top/1}.
%%
%% Each screen shows what there is now and what came since the screen before: rates, and the times of the calls that
%% ended meanwhile.
%% @private
-module(tokamak_top).

-export([run/2]).

%% What a screen shows of each list, so that it stays one screen.
-define(MOST, 8).
-define(CLEAR, "\e[H\e[2J").
-define(MEGABYTE, 1.0e6).

-spec run(pos_integer(), pos_integer() | infinity) -> ok.
run(Interval, Count) ->
    Keys = watch_keys(Count),
    try
        refresh(Keys, Interval, Count, sample(), is_terminal())
    after
        stop_watching(Keys)
    end.

%% A request for a line stays with the terminal when its process dies, so it is made only where it ends the view.
watch_keys(infinity) ->
    Viewer = self(),
    spawn_link(fun() ->
        _ = io:get_line(""),
        unlink(Viewer),
        Viewer ! {self(), pressed}
    end);
watch_keys(_Count) ->
    none.

stop_watching(none) ->
    ok;
stop_watching(Keys) ->
    unlink(Keys),
    exit(Keys, kill),
    receive
        {Keys, pressed} -> ok
    after 0 -> ok
    end.

is_terminal() ->
    is_tuple(io:columns()) andalso element(1, io:columns()) =:= ok.

sample() ->
    {erlang:monotonic_time(millisecond), tokamak_stats:stats()}.

refresh(Keys, Interval, Count, {Then, Before}, IsTerminal) ->
    IsOver = wait(Keys, Interval),
    {Now, Stats} = Sample = sample(),
    Screen = screen(Stats, Before, max(1, Now - Then) / 1000),
    ok = io:put_chars([[?CLEAR || IsTerminal], Screen, [hint(Count) || IsTerminal]]),
    case Count of
        _ when IsOver; Count =:= 1 -> ok;
        infinity -> refresh(Keys, Interval, Count, Sample, IsTerminal);
        _ -> refresh(Keys, Interval, Count - 1, Sample, IsTerminal)
    end.

wait(none, Interval) ->
    ok = timer:sleep(Interval),
    false;
wait(Keys, Interval) ->
    receive
        {Keys, pressed} -> true
    after Interval -> false
    end.

hint(infinity) -> "\nEnter ends this.\n";
hint(_Count) -> [].

%% The lines of a screen; `Seconds' since the stats before.
screen(Stats, Before, Seconds) ->
    Rate = fun(Path) -> (at(Path, Stats) - at(Path, Before)) / Seconds end,
    [
        head(Stats),
        engines(Stats, Before, Seconds),
        calls(Stats, Before, Seconds),
        loops(Stats, Before, Rate),
        pools(Stats, Before, Seconds),
        subprocesses(Stats, Rate)
    ].

%% Of an engine that was not there before, 0.
at([], Value) -> Value;
at([Key | Path], Map) when is_map_key(Key, Map) -> at(Path, maps:get(Key, Map));
at(_Path, _Map) -> 0.

head(#{alarms := Alarms, in_flight := InFlight, fds := Fds, owners := Owners}) ->
    Set =
        case Alarms of
            [] -> "none";
            _ -> lists:join(", ", [atom_to_list(Alarm) || Alarm <- Alarms])
        end,
    format("tokamak: ~b calls in flight, ~b descriptors, ~b owners; alarms: ~ts~n", [InFlight, Fds, Owners, Set]).

engines(#{engines := Engines}, #{engines := Before}, Seconds) ->
    [
        format("~n~-24ts ~7s ~6s ~9s ~9s ~7s ~8s ~9s~n",
            ["ENGINE", "WORKERS", "BUSY", "IN FLIGHT", "REFUSED/S", "QUEUE", "BLOCKING", "TASKS"])
        | [
            engine(Engine, Runtime, maps:get(Engine, Before, #{}), Seconds)
         || {Engine, #{calls := _} = Runtime} <- lists:sort(maps:to_list(Engines))
        ]
    ].

engine(Engine, Runtime, Before, Seconds) ->
    #{workers := Workers, in_flight := InFlight, queue_depth := Queue, blocking_running := Blocking} = Runtime,
    #{tasks := Tasks, busy_time := Busy, refused := Refused} = Runtime,
    Share = (Busy - at([busy_time], Before)) / (Seconds * 1.0e9 * Workers),
    RefusedRate = (Refused - at([refused], Before)) / Seconds,
    format("~-24ts ~7b ~5.1f% ~9b ~9.1f ~7b ~8b ~9b~n",
        [Engine, Workers, 100 * min(1.0, Share), InFlight, RefusedRate, Queue, Blocking, Tasks]).

calls(Stats, Before, Seconds) ->
    Now = all_calls(Stats),
    Then = all_calls(Before),
    Ended = [
        {Kind, tokamak_stats:since(maps:get(Kind, Then, none(Timed)), Timed)}
     || {Kind, Timed} <- lists:sort(maps:to_list(Now))
    ],
    [
        format("~n~-24ts ~11s ~9s ~9s ~9s ~9s~n", ["CALLS", "ENDED/S", "p50", "p90", "p99", "p999"])
        | [kind(Kind, Timed, Seconds) || {Kind, {Count, _, _} = Timed} <- Ended, Count > 0]
    ].

all_calls(#{engines := Engines}) ->
    tokamak_stats:sum([Calls || #{calls := Calls} <- maps:values(Engines)]).

none({_Count, Sample, _Times}) -> {0, Sample, {0, []}}.

kind(Kind, {Count, _, _} = Timed, Seconds) ->
    Quantiles = quantiles(tokamak_stats:summary(Timed)),
    format("~-24ts ~11.1f ~9s ~9s ~9s ~9s~n", [Kind, Count / Seconds | Quantiles]).

quantiles(Summary) ->
    [time(maps:get(Key, Summary, none)) || Key <- [p50, p90, p99, p999]].

time(none) -> "-";
time(Ns) when Ns < 1_000 -> format("~bns", [Ns]);
time(Ns) when Ns < 1_000_000 -> format("~.1fus", [Ns / 1.0e3]);
time(Ns) when Ns < 1_000_000_000 -> format("~.1fms", [Ns / 1.0e6]);
time(Ns) -> format("~.1fs", [Ns / 1.0e9]).

loops(Stats, #{wake_to_drain := WakesBefore}, Rate) ->
    #{loops := Loops, loop_totals := Totals, wake_to_drain := Wakes, loop_info := Info} = Stats,
    #{queued := Queued, timers := Timers, readers := Readers, writers := Writers} = Totals,
    [P50, _, P99, _] = quantiles(tokamak_stats:summary(tokamak_stats:since(WakesBefore, Wakes))),
    Total = fun(Key) -> Rate([loop_totals, Key]) end,
    [
        format("~nLOOPS ~b: ~b timers, ~b readers, ~b writers, ~b queued; wake to drain p50 ~s p99 ~s~n",
            [Loops, Timers, Readers, Writers, Queued, P50, P99]),
        format("      ~.1f events/s, ~.1f wakes/s, ~.1f refused/s~n", [Total(drained), Total(wakes), Total(refused)])
        | [loop(Fullest) || Fullest <- most(queued, Info)]
    ].

loop(#{owner := Owner, queued := Queued, max_queue := Max, high_water_mark := Most}) ->
    format("      ~-18ts ~b of ~b queued, ~b at the most~n", [name(Owner), Queued, Max, Most]).

%% Those with the most of something, if they have any.
most(Key, Maps) ->
    Sorted = lists:reverse(lists:keysort(1, [{N, Map} || #{Key := N} = Map <- Maps, N > 0])),
    [Map || {_, Map} <- lists:sublist(Sorted, ?MOST)].

name(Pid) ->
    case process_info(Pid, registered_name) of
        {registered_name, Name} -> atom_to_list(Name);
        _ -> pid_to_list(Pid)
    end.

pools(#{engines := Engines}, #{engines := Before}, Seconds) ->
    Sum = fun(Key, Of) -> lists:sum([at([pools, Key], Runtime) || Runtime <- maps:values(Of)]) end,
    Items = (Sum(succeeded, Engines) + Sum(failed, Engines) - Sum(succeeded, Before) - Sum(failed, Before)) / Seconds,
    Runs = lists:append([Runs || #{pool_info := Runs} <- maps:values(Engines)]),
    [
        format("~nPOOLS ~b: ~.1f items/s~n", [Sum(running, Engines), Items])
        | [pool(Run) || Run <- most(dispatched, Runs)]
    ].

pool(#{owner := Owner, dispatched := Dispatched, succeeded := Succeeded, failed := Failed}) ->
    format("      ~-18ts ~b of ~b items done, ~b of them failed~n", [name(Owner), Succeeded + Failed, Dispatched, Failed]).

subprocesses(#{subprocesses := Open}, Rate) ->
    Bytes = fun(Key) -> Rate([subprocess_totals, Key]) / ?MEGABYTE end,
    format("~nSUBPROCESSES ~b: ~.1f started/s; MB/s: ~.2f in, ~.2f out, ~.2f err~n",
        [Open, Rate([subprocess_totals, started]), Bytes(written), Bytes(stdout), Bytes(stderr)]).

format(Format, Arguments) ->
    io_lib:format(Format, Arguments).
