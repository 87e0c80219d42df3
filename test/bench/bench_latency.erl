%% SPDX-License-Identifier: Apache-2.0
%% @doc From the push on a native thread until the sleeping consumer has the event in its hands.
%%
%% A native thread stamps an event and pushes it, one at a time; the consumer takes the event and reads
%% the same clock. Between two events the thread sleeps, outside of what is measured, so that the
%% consumer and its scheduler have gone to rest. Baseline: one enif_send of the stamp.
-module(bench_latency).

-export([benches/1]).

-define(EVENTS, 2000).
-define(PAUSE_MICROSECONDS, 200).

-spec benches(tokamak_bench:options()) -> [tokamak_bench:bench()].
benches(Options) ->
    [fun() -> rows(Options) end].

rows(Options) ->
    Events = bench_measure:scaled(?EVENTS, Options),
    Subjects = [
        {raw, fun() -> raw(Events) end},
        {poll, fun() -> poll(Events) end},
        {send, fun() -> send(Events) end}
    ],
    Measured = bench_measure:compare(Subjects, Options),
    [row(Measured, raw, "push to drain, raw loop"), row(Measured, poll, "push to poll, supervised loop")].

row(Measured, Key, Name) ->
    bench_report:row(#{
        name => Name,
        kind => latency,
        unit => "event",
        subject => maps:get(Key, Measured),
        baseline_name => "enif_send to receive",
        baseline => maps:get(send, Measured)
    }).

raw(Events) ->
    {ok, Loop} = tokamak_loop:open(),
    Stamper = tokamak_bench_nif:stamper_push(tokamak_nif:table(), Loop, ?PAUSE_MICROSECONDS),
    Sample = measure(Events, Stamper, fun() ->
        receive
            {tokamak, Loop, ready} ->
                {empty, [{1, user, Stamp}]} = tokamak_loop:drain(Loop),
                Stamp
        end
    end),
    ok = tokamak_loop:destroy(Loop),
    Sample.

poll(Events) ->
    {ok, Loop} = tokamak_loop:new(),
    Stamper = tokamak_bench_nif:stamper_push(tokamak_nif:table(), Loop, ?PAUSE_MICROSECONDS),
    Sample = measure(Events, Stamper, fun() ->
        [{1, user, Stamp}] = tokamak_loop:poll(Loop, infinity),
        Stamp
    end),
    ok = tokamak_loop:destroy(Loop),
    Sample.

send(Events) ->
    Stamper = tokamak_bench_nif:stamper_send(self(), ?PAUSE_MICROSECONDS),
    measure(Events, Stamper, fun() ->
        receive
            {1, user, Stamp} -> Stamp
        end
    end).

measure(Events, Stamper, Take) ->
    bench_measure:latencies(Events, fun() ->
        [
            begin
                ok = tokamak_bench_nif:stamper_next(Stamper),
                Stamp = Take(),
                tokamak_bench_nif:monotonic_nanoseconds() - Stamp
            end
         || _ <- lists:seq(1, Events)
        ]
    end).
