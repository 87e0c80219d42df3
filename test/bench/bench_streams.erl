%% SPDX-License-Identifier: Apache-2.0
%% @doc Streams and duplex operations, beside a process that sends what its consumer asks for.
-module(bench_streams).

-export([benches/1]).

-define(ITEMS, 300000).
-define(BINARIES, 20000).
-define(BINARY_SIZE, 65536).
-define(WINDOW, 16).
-define(ROUND_TRIPS, 10000).

-spec benches(tokamak_bench:options()) -> [tokamak_bench:bench()].
benches(Options) ->
    %% Both runtimes are started, with the descriptors they keep.
    _ = by_hand(1),
    {ok, 0} = tokamak:call({tokamak_test_engine, yields}, [0]),
    [
        fun() -> items(Options) end,
        fun() -> binaries(Options) end,
        fun() -> round_trips(Options) end,
        fun() -> memory(Options) end
    ].

items(Options) ->
    Items = bench_measure:scaled(?ITEMS, Options),
    rows(Options, "stream of integers", [
        {stream, fun() -> fold(Items, tokamak:stream(count, [Items, 0])) end},
        {process, fun() -> credit(Items, fun(N) -> N end) end}
    ]).

binaries(Options) ->
    Items = bench_measure:scaled(?BINARIES, Options),
    rows(Options, "stream of binaries of 64 KiB", [
        {stream, fun() -> stream_binaries(Items) end},
        {process, fun() -> credit_binaries(Items) end}
    ]).

memory(Options) ->
    Items = bench_measure:scaled(?BINARIES, Options),
    [
        bench_memory:over_time(io_lib:format("~b binaries of 64 KiB", [Items]), [
            {"stream", fun() -> stream_binaries(Items) end},
            {"process, window of 16", fun() -> credit_binaries(Items) end}
        ])
    ].

stream_binaries(Items) ->
    fold(Items, tokamak:stream({tokamak_test_engine, binaries}, [Items, ?BINARY_SIZE])).

credit_binaries(Items) ->
    credit(Items, fun(N) -> binary:copy(<<N>>, ?BINARY_SIZE) end).

rows(Options, Name, Subjects) ->
    Measured = bench_measure:compare(Subjects, Options),
    [
        bench_report:row(#{
            name => Name,
            kind => rate,
            unit => "item",
            subject => maps:get(stream, Measured),
            baseline_name => "process, window of 16",
            baseline => maps:get(process, Measured)
        })
    ].

fold(Items, Stream) ->
    bench_measure:timed(Items, fun() ->
        {ok, Count} = tokamak:fold(fun(_Item, Count) -> Count + 1 end, 0, Stream),
        Count
    end).

%% A process that runs a window ahead of what its consumer acknowledged.
credit(Items, Make) ->
    Consumer = self(),
    Producer = spawn_link(fun() -> produce(Consumer, Make, 1, Items, ?WINDOW) end),
    bench_measure:timed(Items, fun() ->
        Producer ! go,
        consume(Producer, Items, 0)
    end).

produce(Consumer, Make, Next, Items, Credit) ->
    receive
        go -> produce_on(Consumer, Make, Next, Items, Credit)
    end.

produce_on(_Consumer, _Make, Next, Items, _Credit) when Next > Items ->
    ok;
produce_on(Consumer, Make, Next, Items, 0) ->
    receive
        {credit, More} -> produce_on(Consumer, Make, Next, Items, More)
    end;
produce_on(Consumer, Make, Next, Items, Credit) ->
    Consumer ! {item, Make(Next)},
    produce_on(Consumer, Make, Next + 1, Items, Credit - 1).

consume(_Producer, Items, Items) ->
    Items;
consume(Producer, Items, Count) ->
    receive
        {item, _Item} ->
            case (Count + 1) rem (?WINDOW div 2) of
                0 -> Producer ! {credit, ?WINDOW div 2};
                _ -> ok
            end,
            consume(Producer, Items, Count + 1)
    end.

round_trips(Options) ->
    Trips = bench_measure:scaled(?ROUND_TRIPS, Options),
    Measured = bench_measure:compare([
        {duplex, fun() -> duplex(Trips) end},
        {by_hand, fun() -> by_hand(Trips) end}
    ], Options),
    [
        bench_report:row(#{
            name => "duplex round trip",
            kind => wall_cost,
            unit => "round trip",
            subject => maps:get(duplex, Measured),
            baseline_name => "hand-written call",
            baseline => maps:get(by_hand, Measured)
        })
    ].

duplex(Trips) ->
    Stream = tokamak:open({tokamak_test_engine, sums}, [0]),
    Sample = bench_measure:timed(Trips, fun() -> push_and_next(Stream, Trips, 0) end),
    ok = tokamak:close(Stream),
    Sample.

push_and_next(_Stream, Trips, Trips) ->
    Trips;
push_and_next(Stream, Trips, _Count) ->
    ok = tokamak:push(Stream, 1),
    {ok, Sum} = tokamak:next(Stream),
    push_and_next(Stream, Trips, Sum).

by_hand(Trips) ->
    bench_measure:timed(Trips, fun() ->
        length([begin
            Ref = make_ref(),
            ok = tokamak_bench_nif:hand_written_call(Ref, N),
            receive {hand_written, Ref, {ok, N}} -> ok end
        end || N <- lists:seq(1, Trips)])
    end).
