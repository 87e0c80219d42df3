%% SPDX-License-Identifier: Apache-2.0
%% @doc Native events with an integer as payload, from native threads to one process.
%%
%% tokamak: threads push through the C table; the process drains its raw loop, or polls a supervised
%% one. Baselines: a message for each event, from the same native threads (enif_send, one environment a
%% thread) and from as many Erlang processes. The upper limit is one message for a list of 1,000.
%% All consumers count the same tuples and add up the same integers.
-module(bench_events).

-export([benches/1]).

%% Each side takes some 0.2 seconds.
-define(EVENTS, 2000000).
-define(MESSAGES, 400000).
-define(LIST_SIZE, 1000).
-define(LONG, 10000000).

-spec benches(tokamak_bench:options()) -> [tokamak_bench:bench()].
benches(Options) ->
    [fun() -> rows(Producers, Options) end || Producers <- [1, 2, 4]] ++ [fun() -> memory(Options) end].

rows(Producers, Options) ->
    Events = bench_measure:scaled(?EVENTS div Producers, Options),
    Messages = bench_measure:scaled(?MESSAGES div Producers, Options),
    Measured = bench_measure:compare(subjects(Producers, Events, Messages), Options),
    [row(Producers, Measured, Comparison) || Comparison <- comparisons()].

subjects(Producers, Events, Messages) ->
    [
        {raw, fun() -> raw(Producers, Events) end},
        {poll, fun() -> poll(Producers, Events) end},
        {send, fun() -> send(Producers, Messages) end},
        {process, fun() -> process(Producers, Messages) end},
        {list, fun() -> list(Producers, Events) end}
    ].

comparisons() ->
    [
        {raw, "raw loop, drain", send, "enif_send each", #{must => 8, aim => 15}},
        {raw, "raw loop, drain", process, "process to process", #{must => 2.5, aim => 4}},
        {poll, "supervised loop, poll", send, "enif_send each", #{must => 8, aim => 15}},
        {poll, "supervised loop, poll", process, "process to process", #{must => 2.5, aim => 4}},
        {raw, "raw loop, drain", list, "list of 1,000 (the limit)", #{}}
    ].

row(Producers, Measured, {Subject, Name, Baseline, BaselineName, Marks}) ->
    bench_report:row(Marks#{
        name => [integer_to_list(Producers), " producer(s), ", Name],
        kind => rate,
        unit => "event",
        plot => #{title => "Events", line => Name, x_name => "producers", x => Producers},
        subject => maps:get(Subject, Measured),
        baseline_name => BaselineName,
        baseline => maps:get(Baseline, Measured)
    }).

memory(Options) ->
    Events = bench_measure:scaled(?LONG, Options),
    [
        bench_memory:over_time(io_lib:format("~.1f million events from one producer", [Events / 1.0e6]), [
            {"raw loop, drain", fun() -> raw(1, Events) end},
            {"supervised loop, poll", fun() -> poll(1, Events) end},
            {"process to process", fun() -> process(1, Events) end},
            {"enif_send each", fun() -> send(1, Events) end}
        ])
    ].

raw(Threads, Each) ->
    {ok, Loop} = tokamak_loop:open(),
    Producers = tokamak_bench_nif:producers_push(tokamak_nif:table(), Loop, 1, Threads, Each),
    Total = Threads * Each,
    Sample = bench_measure:timed(Total, fun() ->
        ok = tokamak_bench_nif:producers_start(Producers),
        checked(wait_raw(Loop, Total, {0, 0}), Threads, Each)
    end),
    ok = tokamak_bench_nif:producers_join(Producers),
    ok = tokamak_loop:destroy(Loop),
    Sample.

wait_raw(_Loop, Total, {Total, _} = Counted) ->
    Counted;
wait_raw(Loop, Total, Counted) ->
    receive
        {tokamak, Loop, ready} -> drain(Loop, Total, Counted)
    end.

drain(Loop, Total, Counted) ->
    case tokamak_loop:drain(Loop) of
        {more, Events} -> drain(Loop, Total, count(Events, Counted));
        {empty, Events} -> wait_raw(Loop, Total, count(Events, Counted))
    end.

poll(Threads, Each) ->
    {ok, Loop} = tokamak_loop:new(),
    Producers = tokamak_bench_nif:producers_push(tokamak_nif:table(), Loop, 1, Threads, Each),
    Total = Threads * Each,
    Sample = bench_measure:timed(Total, fun() ->
        ok = tokamak_bench_nif:producers_start(Producers),
        checked(poll_all(Loop, Total, {0, 0}), Threads, Each)
    end),
    ok = tokamak_bench_nif:producers_join(Producers),
    ok = tokamak_loop:destroy(Loop),
    Sample.

poll_all(_Loop, Total, {Total, _} = Counted) ->
    Counted;
poll_all(Loop, Total, Counted) ->
    poll_all(Loop, Total, count(tokamak_loop:poll(Loop, infinity), Counted)).

send(Threads, Each) ->
    messages(Threads, Each, fun() ->
        Producers = tokamak_bench_nif:producers_send(self(), 1, Threads, Each),
        fun() -> tokamak_bench_nif:producers_start(Producers) end
    end).

process(Processes, Each) ->
    messages(Processes, Each, fun() ->
        Consumer = self(),
        Producers = [
            spawn_link(fun() -> produce(Consumer, Id, Each) end)
         || Id <- lists:seq(1, Processes)
        ],
        fun() -> lists:foreach(fun(Producer) -> Producer ! go end, Producers) end
    end).

produce(Consumer, Id, Each) ->
    receive
        go -> send_all(Consumer, Id, 0, Each)
    end.

send_all(_Consumer, _Id, Each, Each) ->
    ok;
send_all(Consumer, Id, Integer, Each) ->
    Consumer ! {Id, user, Integer},
    send_all(Consumer, Id, Integer + 1, Each).

messages(Threads, Each, Prepare) ->
    Start = Prepare(),
    Total = Threads * Each,
    bench_measure:timed(Total, fun() ->
        Start(),
        checked(receive_all(Total, 0, 0), Threads, Each)
    end).

receive_all(Total, Total, Sum) ->
    {Total, Sum};
receive_all(Total, Count, Sum) ->
    receive
        {_Id, user, Integer} -> receive_all(Total, Count + 1, Sum + Integer)
    end.

list(Threads, Each) ->
    Producers = tokamak_bench_nif:producers_send_lists(self(), 1, Threads, Each, ?LIST_SIZE),
    Total = Threads * Each,
    bench_measure:timed(Total, fun() ->
        ok = tokamak_bench_nif:producers_start(Producers),
        checked(receive_lists(Total, {0, 0}), Threads, Each)
    end).

receive_lists(Total, {Total, _} = Counted) ->
    Counted;
receive_lists(Total, Counted) ->
    receive
        Events when is_list(Events) -> receive_lists(Total, count(Events, Counted))
    end.

count([{_Id, user, Integer} | Rest], {Count, Sum}) ->
    count(Rest, {Count + 1, Sum + Integer});
count([], Counted) ->
    Counted.

%% Every integer of every producer has come once, or their sum is another.
checked({Count, Sum}, Producers, Each) ->
    Sum = Producers * Each * (Each - 1) div 2,
    Count.
