%% SPDX-License-Identifier: Apache-2.0
%% @doc What a waiting call, a timer and a descriptor's event take while much else is about: 100,000 calls in
%% flight, 100,000 other messages in the caller's mailbox, every blocking thread asleep. Baseline: the same
%% with nothing about.
-module(bench_load).

-export([benches/1]).

-define(CALLS, 5000).
-define(TIMERS, 200).
-define(MANY, 100000).
-define(BLOCKING_THREADS, 64).
%% Longer than what is measured meanwhile.
-define(ASLEEP, 3000).
-define(FOREVER, 3600_000_000).

-spec benches(tokamak_bench:options()) -> [tokamak_bench:bench()].
benches(Options) ->
    {ok, 0} = tokamak:call({tokamak_test_engine, yields}, [0]),
    Calls = bench_measure:scaled(?CALLS, Options),
    Timers = bench_measure:scaled(?TIMERS, Options),
    [
        fun() ->
            rows("waiting call", "call", fun() -> bench_measure:turns(Calls, fun call/0) end, [in_flight, mailbox, asleep], Options)
        end,
        fun() -> rows("timer of 1 ms", "timer", fun() -> timers(Timers) end, [asleep], Options) end,
        fun() -> rows("descriptor's event", "event", fun() -> descriptor(Calls) end, [asleep], Options) end
    ].

rows(What, Unit, Measure, Loads, Options) ->
    Measured = bench_measure:compare(
        [{Load, fun() -> under(Load, Measure) end} || Load <- [nothing | Loads]], Options
    ),
    [
        bench_report:row(#{
            name => [What, ", ", name(Load)],
            kind => latency,
            unit => Unit,
            subject => maps:get(Load, Measured),
            baseline_name => "nothing else about",
            baseline => maps:get(nothing, Measured)
        })
     || Load <- Loads
    ].

name(in_flight) -> "100,000 calls in flight";
name(mailbox) -> "100,000 messages queued";
name(asleep) -> "all blocking threads asleep".

under(nothing, Measure) ->
    Measure();
under(mailbox, Measure) ->
    lists:foreach(fun(N) -> self() ! {other, N} end, lists:seq(1, ?MANY)),
    Measure();
under(in_flight, Measure) ->
    Test = self(),
    {Caller, Monitor} = spawn_monitor(fun() ->
        Later = {tokamak_test_engine, later_in_runtime},
        Refs = [tokamak:async(Later, [x, ?FOREVER]) || _ <- lists:seq(1, ?MANY)],
        Test ! {in_flight, length(Refs)},
        receive stop -> ok end
    end),
    receive {in_flight, ?MANY} -> ok end,
    Sample = Measure(),
    %% Its calls are cancelled with it.
    Caller ! stop,
    receive {'DOWN', Monitor, process, Caller, normal} -> Sample end;
under(asleep, Measure) ->
    Key = erlang:unique_integer([positive]),
    Block = {tokamak_test_engine, block},
    Sleepers = [tokamak:async(Block, [Key, ?ASLEEP]) || _ <- lists:seq(1, ?BLOCKING_THREADS)],
    wait_until_asleep(Key),
    Sample = Measure(),
    ?BLOCKING_THREADS = asleep(Key),
    _ = tokamak:await_many(Sleepers, 2 * ?ASLEEP),
    Sample.

wait_until_asleep(Key) ->
    case asleep(Key) of
        ?BLOCKING_THREADS -> ok;
        _ -> receive after 5 -> wait_until_asleep(Key) end
    end.

asleep(Key) ->
    {ok, {Now, _Most, _All}} = tokamak:call({tokamak_test_engine, counted}, [Key]),
    Now.

call() ->
    {ok, 0} = tokamak:call({tokamak_test_engine, yields}, [0]).

timers(Count) ->
    {ok, Loop} = tokamak_loop:new(),
    Sample = bench_measure:turns(Count, fun() ->
        Timer = tokamak_loop:start_timer(Loop, 1, 1),
        [{1, timer, Timer}] = tokamak_loop:poll(Loop, infinity)
    end),
    ok = tokamak_loop:destroy(Loop),
    Sample.

%% From the write to the byte.
descriptor(Count) ->
    {ok, Loop} = tokamak_loop:new(),
    {ok, Read, Write} = tokamak_fd:pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    Sample = bench_measure:turns(Count, fun() ->
        {ok, 1} = tokamak_fd:write(Write, <<1>>),
        [{1, read, undefined}] = tokamak_loop:poll(Loop, infinity),
        {ok, <<1>>} = tokamak_fd:read(Read, 10)
    end),
    ok = tokamak_loop:destroy(Loop),
    ok = tokamak_fd:close(Read),
    ok = tokamak_fd:close(Write),
    Sample.
