%% SPDX-License-Identifier: Apache-2.0
%% @doc Native calls, beside the asynchronous call that NIF authors write by hand (a tokio runtime, a spawn
%% and a message from an environment of its own), a NIF on a dirty scheduler, a process that answers, and a port.
%%
%% The operations do nothing but return, so that the way to them and back is what is measured. Every
%% result is checked.
-module(bench_calls).

-export([benches/1]).

-define(EAGER, 300000).
-define(WAITING, 10000).
-define(TURNS, 5).
-define(PIPELINED, 100000).
-define(AT_ONCE, 1000).
%% An hour, in microseconds.
-define(FOREVER, 3600_000_000).
-define(READY, {tokamak_test_engine, yields}).

-spec benches(tokamak_bench:options()) -> [tokamak_bench:bench()].
benches(Options) ->
    %% Both runtimes are started, with the descriptors they keep.
    0 = by_hand(0),
    {ok, 0} = tokamak:call(?READY, [0]),
    [
        fun() -> eager(Options) end,
        fun() -> one_at_a_time(Options) end,
        fun() -> pipelined(Options) end,
        fun() -> cancel_storm(Options) end
        | [fun() -> callers(Callers, Options) end || Callers <- [1, 10, 50, 100, 1000]]
    ].

%% Eager calls: the answer is there at once.
eager(Options) ->
    Calls = bench_measure:scaled(?EAGER, Options),
    Waiting = bench_measure:scaled(?WAITING, Options),
    Values = [
        {integer, "an integer", 42},
        {map, "a small map", #{id => 1, name => <<"name">>, list => [1, 2, 3]}},
        {binary, "a binary of 64 KiB", binary:copy(<<0>>, 65536)}
    ],
    Subjects =
        [{Key, fun() -> timed(Calls, fun(_) -> echo(Value) end) end} || {Key, _, Value} <- Values] ++
            [{by_hand, fun() -> timed(Waiting, fun by_hand/1) end}],
    Measured = bench_measure:compare(Subjects, Options),
    [
        row(Measured, ["eager call, ", Name], Key, by_hand, "hand-written call", marks(Key))
     || {Key, Name, _} <- Values
    ].

marks(integer) -> #{must => 50, aim => 100};
marks(_) -> #{}.

echo(Value) ->
    {ok, Value} = tokamak:call(echo, [Value]).

%% Calls that wait, one at a time.
one_at_a_time(Options) ->
    Calls = bench_measure:scaled(?WAITING, Options) div ?TURNS + 1,
    Server = spawn_link(fun serve/0),
    Subjects = [
        {call, fun() -> timed(Calls, fun(_) -> {ok, 0} = tokamak:call(?READY, [0]) end) end},
        {by_hand, fun() -> timed(Calls, fun by_hand/1) end},
        {dirty, fun() -> timed(Calls, fun(N) -> N = tokamak_bench_nif:dirty_echo(N) end) end},
        {process, fun() -> timed(Calls, fun(N) -> ask(Server, N) end) end},
        {port, fun() -> through_port(Calls) end}
    ],
    %% Where the threads sit decides more than what they do: many short turns.
    #{runs := Runs} = Options,
    Measured = bench_measure:compare(Subjects, Options#{runs := ?TURNS * Runs}),
    Server ! stop,
    Name = "waiting call, one at a time",
    [
        row(Measured, Name, call, by_hand, "hand-written call", #{must => 1.0, aim => 1.3}),
        row(Measured, Name, call, dirty, "NIF on a dirty scheduler", #{}),
        row(Measured, Name, call, process, "process to process", #{}),
        row(Measured, Name, call, port, "a port, through cat", #{})
    ].

through_port(Calls) ->
    Port = open_port({spawn_executable, os:find_executable("cat")}, [stream, binary]),
    Sample = timed(Calls, fun(_) ->
        true = port_command(Port, <<0>>),
        receive {Port, {data, <<0>>}} -> ok end
    end),
    true = port_close(Port),
    Sample.

%% Calls that are cancelled while they wait, many at once; beside processes that are killed.
cancel_storm(Options) ->
    Calls = bench_measure:scaled(?PIPELINED, Options) div ?AT_ONCE * ?AT_ONCE,
    Subjects = [
        {calls, fun() -> in_batches(Calls, ?AT_ONCE, fun cancelled_calls/1) end},
        {processes, fun() -> in_batches(Calls, ?AT_ONCE, fun killed_processes/1) end}
    ],
    Measured = bench_measure:compare(Subjects, Options),
    [row(Measured, "start and cancel of 1,000 at once", calls, processes, "processes, started and killed", #{})].

cancelled_calls(Size) ->
    Waits = {tokamak_test_engine, later_in_runtime},
    Refs = [tokamak:async(Waits, [x, ?FOREVER]) || _ <- lists:seq(1, Size)],
    length([ok || Ref <- Refs, ok <- [tokamak:cancel(Ref)]]).

killed_processes(Size) ->
    Pids = [spawn_monitor(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, Size)],
    lists:foreach(fun({Pid, _}) -> exit(Pid, kill) end, Pids),
    length([receive {'DOWN', Monitor, process, Pid, killed} -> ok end || {Pid, Monitor} <- Pids]).

%% Many calls under way at once.
pipelined(Options) ->
    Calls = bench_measure:scaled(?PIPELINED, Options) div ?AT_ONCE * ?AT_ONCE,
    Subjects =
        [
            {{gather, Size}, fun() -> in_batches(Calls, Size, fun gather/1) end}
         || Size <- [10, 50, ?AT_ONCE]
        ] ++
            [
                {submit, fun() -> submit(Calls) end},
                {async, fun() -> in_batches(Calls, ?AT_ONCE, fun async/1) end},
                {by_hand, fun() -> in_batches(Calls, ?AT_ONCE, fun by_hand_many/1) end}
            ],
    Measured = bench_measure:compare(Subjects, Options),
    Marks = #{must => 2, aim => 4},
    Baseline = "hand-written, pipelined",
    [
        row(Measured, "gather of 10", {gather, 10}, by_hand, Baseline, at_once("gather", 10)),
        row(Measured, "gather of 50", {gather, 50}, by_hand, Baseline, at_once("gather", 50)),
        row(Measured, "gather of 1,000", {gather, ?AT_ONCE}, by_hand, Baseline,
            maps:merge(Marks, at_once("gather", ?AT_ONCE))),
        row(Measured, "submit_many of 1,000", submit, by_hand, Baseline,
            maps:merge(Marks, at_once("submit_many", ?AT_ONCE))),
        row(Measured, "async and await of 1,000", async, by_hand, Baseline, at_once("async and await", ?AT_ONCE))
    ].

at_once(Line, Calls) ->
    #{plot => #{title => "Calls at once (by hand always 1,000)", line => Line, x_name => "calls at once", x => Calls}}.

%% Many callers, one call each at a time: how long a call takes.
callers(Callers, Options) ->
    Each = bench_measure:scaled(?WAITING, Options) div Callers + 1,
    Call = fun(_) -> {ok, 0} = tokamak:call(?READY, [0]) end,
    Subjects = [
        {call, fun() -> latencies(Callers, Each, Call) end},
        {by_hand, fun() -> latencies(Callers, Each, fun by_hand/1) end}
    ],
    Measured = bench_measure:compare(Subjects, Options),
    [
        bench_report:row(#{
            name => ["waiting call, ", integer_to_list(Callers), " callers"],
            kind => latency,
            unit => "call",
            subject => maps:get(call, Measured),
            baseline_name => "hand-written call",
            baseline => maps:get(by_hand, Measured),
            plot => #{title => "Waiting calls", line => "call", x_name => "callers", x => Callers}
        })
    ].

latencies(Callers, Each, Call) ->
    Test = self(),
    Pids = [spawn_link(fun() -> caller(Test, Each, Call) end) || _ <- lists:seq(1, Callers)],
    bench_measure:latencies(Callers * Each, fun() ->
        lists:foreach(fun(Pid) -> Pid ! go end, Pids),
        lists:append([receive {Pid, Latencies} -> Latencies end || Pid <- Pids])
    end).

caller(Test, Each, Call) ->
    receive
        go -> Test ! {self(), [bench_measure:time(fun() -> Call(N) end) || N <- lists:seq(1, Each)]}
    end.

row(Measured, Name, Subject, Baseline, BaselineName, More) ->
    bench_report:row(More#{
        name => Name,
        kind => wall_cost,
        unit => "call",
        subject => maps:get(Subject, Measured),
        baseline_name => BaselineName,
        baseline => maps:get(Baseline, Measured)
    }).

timed(Calls, Call) ->
    bench_measure:timed(Calls, fun() -> repeat(Call, Calls, 0) end).

repeat(_Call, 0, Count) ->
    Count;
repeat(Call, Left, Count) ->
    _ = Call(Left),
    repeat(Call, Left - 1, Count + 1).

in_batches(Calls, Size, Batch) ->
    bench_measure:timed(Calls, fun() ->
        lists:sum([Batch(Size) || _ <- lists:seq(1, Calls div Size)])
    end).

gather(Size) ->
    {ok, Results} = tokamak:gather([{?READY, [0]} || _ <- lists:seq(1, Size)]),
    length([ok || 0 <- Results]).

async(Size) ->
    Refs = [tokamak:async(?READY, [0]) || _ <- lists:seq(1, Size)],
    length([ok || Ref <- Refs, {ok, 0} <- [tokamak:await(Ref)]]).

submit(Calls) ->
    {ok, Loop} = tokamak_loop:new(),
    Sample = in_batches(Calls, ?AT_ONCE, fun(Size) ->
        ok = tokamak_loop:submit_many(Loop, [{1, ?READY, [0]} || _ <- lists:seq(1, Size)]),
        polled(Loop, Size)
    end),
    ok = tokamak_loop:destroy(Loop),
    Sample.

polled(_Loop, 0) ->
    ?AT_ONCE;
polled(Loop, Left) ->
    Events = tokamak_loop:poll(Loop, infinity),
    polled(Loop, Left - length([ok || {1, async_result, 0} <- Events])).

by_hand(N) ->
    Ref = make_ref(),
    ok = tokamak_bench_nif:hand_written_call(Ref, N),
    receive
        {hand_written, Ref, {ok, N}} -> N
    end.

by_hand_many(Size) ->
    Ref = make_ref(),
    _ = [tokamak_bench_nif:hand_written_call(Ref, N) || N <- lists:seq(1, Size)],
    length([receive {hand_written, Ref, {ok, _}} -> ok end || _ <- lists:seq(1, Size)]).

serve() ->
    receive
        {From, Ref, N} ->
            From ! {Ref, N},
            serve();
        stop ->
            ok
    end.

ask(Server, N) ->
    Ref = make_ref(),
    Server ! {self(), Ref, N},
    receive
        {Ref, N} -> N
    end.
