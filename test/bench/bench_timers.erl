%% SPDX-License-Identifier: Apache-2.0
%% @doc Timers of a loop beside those of OTP (`erlang:start_timer/3'), with the same consumer: a process
%% that starts them and counts those that fire. A timer that comes early or twice ends the run.
%%
%% Where waiting takes most of the time (random delays, few timers at once), what is compared is the
%% processor time of all threads.
-module(bench_timers).

-export([benches/1]).

-define(BURST, 200000).
-define(RANDOM_DELAY, 2000).
-define(LATENESS_TIMERS, 1000).
%% All timers are started before any is taken, so that many have fired by then.
-define(OPTIONS, #{max_queue => 1048576}).
-define(SIZES, [1, 10, 100, 1000, 10000]).

-spec benches(tokamak_bench:options()) -> [tokamak_bench:bench()].
benches(Options) ->
    Count = bench_measure:scaled(?BURST, Options),
    [
        fun() -> bursts(Count, 5, #{must => 4, aim => 6}, Options) end,
        fun() -> bursts(Count, 100, #{}, Options) end,
        fun() -> random(Count, Options) end,
        fun() -> lateness(Options) end,
        fun() -> cancels(Count, Options) end
        | [fun() -> standing(Size, Options) end || Size <- ?SIZES] ++
            [fun() -> together(Size, Options) end || Size <- ?SIZES]
    ].

%% Many timers with the same delay, started and fired.

bursts(Count, Delay, Marks, Options) ->
    Subjects = [
        {raw, fun() -> burst(raw, Count, Delay) end},
        {poll, fun() -> burst(poll, Count, Delay) end},
        {otp, fun() -> burst(otp, Count, Delay) end}
    ],
    Measured = bench_measure:compare(Subjects, Options),
    Name = io_lib:format("~b of ~b ms, ", [Count, Delay]),
    [
        row([Name, "raw loop"], rate, Measured, raw, Marks),
        row([Name, "supervised loop"], rate, Measured, poll, Marks)
    ].

burst(Kind, Count, Delay) ->
    with_timers(Kind, fun(Timers) ->
        bench_measure:timed(Count, fun() ->
            start(Timers, Count, fun(_) -> Delay end),
            take_all(Timers, Count)
        end)
    end).

%% Random delays.

random(Count, #{runs := Runs} = Options) ->
    Delays = fun(_) -> rand:uniform(?RANDOM_DELAY + 1) - 1 end,
    Subjects = [{Kind, fun() -> random(Kind, Count, Delays) end} || Kind <- [raw, otp]],
    %% Each takes the two seconds of its longest delay.
    Measured = bench_measure:compare(Subjects, Options#{runs := min(Runs, 3)}, 0),
    Name = io_lib:format("~b of 0-~b ms, raw loop", [Count, ?RANDOM_DELAY]),
    [row(Name, cpu_cost, Measured, raw, #{})].

random(Kind, Count, Delays) ->
    with_timers(Kind, fun(Timers) ->
        bench_measure:timed(Count, fun() ->
            start(Timers, Count, Delays),
            take_all(Timers, Count)
        end)
    end).

%% How late a timer is when its consumer has it.

lateness(Options) ->
    Subjects = [{Kind, fun() -> lateness(Kind, ?LATENESS_TIMERS) end} || Kind <- [raw, otp]],
    Measured = bench_measure:compare(Subjects, Options, 0),
    Name = io_lib:format("lateness, ~b of 1-500 ms, raw loop", [?LATENESS_TIMERS]),
    [row(Name, latency, Measured, raw, #{})].

lateness(Kind, Count) ->
    Delays = list_to_tuple([rand:uniform(500) || _ <- lists:seq(1, Count)]),
    with_timers(Kind, fun(Timers) ->
        bench_measure:latencies(Count, fun() ->
            Dues = list_to_tuple([start_due(Timers, I, element(I, Delays)) || I <- lists:seq(1, Count)]),
            take_late(Timers, Dues, Count, [])
        end)
    end).

start_due(Timers, Id, Delay) ->
    Due = erlang:monotonic_time(nanosecond) + Delay * 1000000,
    start_one(Timers, Id, Delay),
    Due.

take_late(_Timers, _Dues, 0, Late) ->
    Late;
take_late(Timers, Dues, Left, Late) ->
    Ids = take(Timers),
    Now = erlang:monotonic_time(nanosecond),
    More = [not_early(Now - element(Id, Dues)) || Id <- Ids],
    take_late(Timers, Dues, Left - length(Ids), More ++ Late).

not_early(Late) when Late >= 0 -> Late.

%% Started and cancelled.

cancels(Count, Options) ->
    Subjects = [{Kind, fun() -> cancel(Kind, Count) end} || Kind <- [raw, otp]],
    Measured = bench_measure:compare(Subjects, Options),
    Name = io_lib:format("~b started, then cancelled, raw loop", [Count]),
    [row(Name, rate, Measured, raw, #{})].

cancel(Kind, Count) ->
    with_timers(Kind, fun(Timers) ->
        bench_measure:timed(Count, fun() ->
            References = [start_one(Timers, Id, 3600000) || Id <- lists:seq(1, Count)],
            length([ok || Reference <- References, is_integer(cancel_one(Timers, Reference))])
        end)
    end).

%% How the cost grows with the number of timers.

standing(Size, Options) ->
    Rounds = bench_measure:scaled(50000, Options),
    Subjects = [{Kind, fun() -> start_and_cancel(Kind, Size, Rounds) end} || Kind <- [raw, otp]],
    Measured = bench_measure:compare(Subjects, Options),
    Name = io_lib:format("start and cancel one, ~b stand", [Size]),
    Plot = plot("One timer among others", "timers that stand", Size),
    [row(Name, wall_cost, Measured, raw, #{plot => Plot})].

plot(Title, XName, Size) ->
    #{title => Title, line => "raw loop", x_name => XName, x => Size}.

start_and_cancel(Kind, Size, Rounds) ->
    with_timers(Kind, fun(Timers) ->
        start(Timers, Size, fun(_) -> 3000000 + rand:uniform(1000000) end),
        bench_measure:timed(Rounds, fun() -> start_and_cancel_all(Timers, Rounds, 0) end)
    end).

start_and_cancel_all(_Timers, 0, Count) ->
    Count;
start_and_cancel_all(Timers, Rounds, Count) ->
    true = is_integer(cancel_one(Timers, start_one(Timers, 1, 3600000))),
    start_and_cancel_all(Timers, Rounds - 1, Count + 1).

together(Size, Options) ->
    Rounds = bench_measure:scaled(max(1, min(40, 20000 div Size)), Options),
    Subjects = [{Kind, fun() -> fire_together(Kind, Size, Rounds) end} || Kind <- [raw, otp]],
    Measured = bench_measure:compare(Subjects, Options),
    Name = io_lib:format("start and fire, ~b of 1 ms at once", [Size]),
    Plot = plot("Timers of 1 ms that fire together", "timers at once", Size),
    [row(Name, cpu_cost, Measured, raw, #{plot => Plot})].

fire_together(Kind, Size, Rounds) ->
    with_timers(Kind, fun(Timers) ->
        bench_measure:timed(Size * Rounds, fun() ->
            lists:sum([
                begin
                    start(Timers, Size, fun(_) -> 1 end),
                    take_all(Timers, Size)
                end
             || _ <- lists:seq(1, Rounds)
            ])
        end)
    end).

row(Name, Kind, Measured, Subject, More) ->
    bench_report:row(More#{
        name => Name,
        kind => Kind,
        unit => "timer",
        subject => maps:get(Subject, Measured),
        baseline_name => "erlang:start_timer",
        baseline => maps:get(otp, Measured)
    }).

%% The kinds of timers: of a raw loop, of a supervised loop that is polled, of OTP.

with_timers(raw, Fun) ->
    {ok, Loop} = tokamak_loop:open(?OPTIONS),
    Result = Fun({raw, Loop}),
    ok = tokamak_loop:destroy(Loop),
    Result;
with_timers(poll, Fun) ->
    {ok, Loop} = tokamak_loop:new(?OPTIONS),
    Result = Fun({poll, Loop}),
    ok = tokamak_loop:destroy(Loop),
    Result;
with_timers(otp, Fun) ->
    %% Those that still stand end with the process.
    Fun(otp).

start(_Timers, 0, _Delay) ->
    ok;
start(Timers, Count, Delay) ->
    _ = start_one(Timers, Count, Delay(Count)),
    start(Timers, Count - 1, Delay).

start_one(otp, Id, Delay) ->
    erlang:start_timer(Delay, self(), Id);
start_one({_Kind, Loop}, Id, Delay) ->
    Reference = tokamak_loop:start_timer(Loop, Delay, Id),
    true = is_integer(Reference),
    Reference.

cancel_one(otp, Reference) -> erlang:cancel_timer(Reference);
cancel_one({_Kind, Loop}, Reference) -> tokamak_loop:cancel_timer(Loop, Reference).

%% Takes exactly so many: one more would be an event of the next round, and its count wrong.
take_all(otp, Count) ->
    receive_all(Count, 0);
take_all(Timers, Count) ->
    take_all(Timers, Count, 0).

take_all(_Timers, Count, Taken) when Taken >= Count -> Taken;
take_all(Timers, Count, Taken) -> take_all(Timers, Count, Taken + length(take(Timers))).

receive_all(Count, Count) ->
    Count;
receive_all(Count, Taken) ->
    receive
        {timeout, _Reference, _Id} -> receive_all(Count, Taken + 1)
    end.

%% Waits for timers and takes what has fired: the ids.
take(otp) ->
    receive
        {timeout, _Reference, Id} -> [Id]
    end;
take({raw, Loop}) ->
    case tokamak_loop:drain(Loop) of
        {_, []} ->
            receive
                {tokamak, Loop, ready} -> take({raw, Loop})
            end;
        {_, Events} ->
            [Id || {Id, timer, _Reference} <- Events]
    end;
take({poll, Loop}) ->
    [Id || {Id, timer, _Reference} <- tokamak_loop:poll(Loop, infinity)].
