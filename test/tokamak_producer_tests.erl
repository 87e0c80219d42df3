%% SPDX-License-Identifier: Apache-2.0
%% Native threads push faster than a slow consumer takes: all arrives, in order, in bounded memory.
-module(tokamak_producer_tests).

-include_lib("eunit/include/eunit.hrl").

-import(tokamak_test, [new_loop/1, raw_loop/1, rss/0]).

-define(PRODUCERS, 4).
%% Longer than any test: producers wait for room as long as it takes.
-define(WAIT, 600_000).
%% What the VM may grow by: 65,536 events wait natively at most, and 1,024 are in a list at a time.
-define(MEMORY_BOUND, 50_000_000).

producer_test_() ->
    tokamak_test:with_application(
        tokamak_test:cases(300, [
            {"10 million events reach a randomly slow poller", fun ten_million/0},
            {"a raw owner gets all", fun raw_owner/0},
            {"handlers get all, however slow", fun handlers/0},
            {"producers that do not wait are refused, and what was let in arrives", fun refused/0},
            {"producers are told closed when the loop ends", fun closed/0},
            {"a loop that is pushed to can be dropped", fun dropped/0}
        ])
    ).

ten_million() ->
    Loop = new_loop(native),
    Each = 2_500_000,
    Memory = rss(),
    First = start(Loop, Each),
    Take = fun() -> tokamak_loop:poll(Loop, 10_000) end,
    {Counts, Most} = consume(Take, First, ?PRODUCERS * Each, {{0, 0, 0, 0}, Memory}),
    ?assertEqual({Each, Each, Each, Each}, Counts),
    ?assertEqual([], tokamak_loop:poll(Loop, 0)),
    #{high_water_mark := Mark} = tokamak_loop:info(Loop),
    ?debugFmt("at most ~b events waited, memory grew by ~.1f MB", [Mark, (Most - Memory) / 1.0e6]),
    ?assert(Mark =< 65536 + ?PRODUCERS),
    ?assert(Most - Memory < ?MEMORY_BOUND),
    all_ended(#{refused => 0, closed => 0, failed => 0}).

start(Loop, Each) ->
    _ = tokamak_test_nif:producers(),
    First = tokamak_id:next(?PRODUCERS),
    ok = tokamak_test_nif:start_producers(tokamak_nif:table(), Loop, ?PRODUCERS, Each, First, ?WAIT),
    First.

%% Counts what comes of each producer, which has to come in order; rests now and then.
consume(_Take, _First, 0, Result) ->
    Result;
consume(Take, First, Left, {Counts, Memory}) ->
    Events = Take(),
    ?assertNotEqual([], Events),
    Counts1 = lists:foldl(fun(Event, Acc) -> count(Event, First, Acc) end, Counts, Events),
    Memory1 = rest(rand:uniform(500), Memory),
    consume(Take, First, Left - length(Events), {Counts1, Memory1}).

count({Id, user, N}, First, Counts) ->
    Index = Id - First + 1,
    N = element(Index, Counts),
    setelement(Index, Counts, N + 1).

rest(1, Memory) ->
    receive
    after rand:uniform(50) -> max(Memory, rss())
    end;
rest(N, Memory) when N < 10 ->
    erlang:yield(),
    max(Memory, rss());
rest(_, Memory) ->
    Memory.

all_ended(Expected) ->
    tokamak_test:wait_until(fun() -> running() =:= 0 end),
    ?assertEqual(Expected, maps:remove(running, ended())).

%% The ends are told once, so they are kept until all have come.
running() ->
    #{running := Running} = Now = tokamak_test_nif:producers(),
    Ends = maps:remove(running, Now),
    Sum = fun(Key, N) -> N + maps:get(Key, Ends) end,
    _ = put(ends, maps:map(Sum, ends())),
    Running.

ends() ->
    case get(ends) of
        undefined -> #{refused => 0, closed => 0, failed => 0};
        Ends -> Ends
    end.

ended() ->
    _ = running(),
    Ends = ends(),
    _ = erase(ends),
    Ends.

raw_owner() ->
    Loop = raw_loop(#{max_queue => 5000}),
    Each = 250_000,
    First = start(Loop, Each),
    Take = fun() -> tokamak_loop:poll(Loop, 10_000) end,
    {Counts, _} = consume(Take, First, ?PRODUCERS * Each, {{0, 0, 0, 0}, rss()}),
    ?assertEqual({Each, Each, Each, Each}, Counts),
    all_ended(#{refused => 0, closed => 0, failed => 0}).

handlers() ->
    Loop = new_loop(#{max_queue => 5000}),
    Each = 50_000,
    Test = self(),
    First = tokamak_id:next(?PRODUCERS),
    Handlers = [
        begin
            Handler = spawn_link(fun() -> handle(Test, Each) end),
            Handler ! {reference, tokamak_loop:register(Loop, Id, Handler)},
            Handler
        end
     || Id <- lists:seq(First, First + ?PRODUCERS - 1)
    ],
    ok = tokamak_test_nif:start_producers(tokamak_nif:table(), Loop, ?PRODUCERS, Each, First, ?WAIT),
    [
        receive
            {Handler, Most} -> ?assert(Most =< 2100)
        after 60_000 -> erlang:error(handler_got_not_enough)
        end
     || Handler <- Handlers
    ],
    all_ended(#{refused => 0, closed => 0, failed => 0}).

handle(Test, Each) ->
    receive
        {reference, Reference} -> Test ! {self(), handle(Reference, 0, Each, 0)}
    end.

%% The most messages that its mailbox ever had.
handle(_Reference, Each, Each, Most) ->
    Most;
handle(Reference, N, Each, Most) ->
    receive
        {tokamak, Reference, {event, _, user, N}} -> ok
    after 30_000 -> exit({missing, N})
    end,
    case rand:uniform(5000) of
        1 ->
            receive
            after 5 -> ok
            end,
            {message_queue_len, Length} = process_info(self(), message_queue_len),
            handle(Reference, N + 1, Each, max(Most, Length));
        _ ->
            handle(Reference, N + 1, Each, Most)
    end.

refused() ->
    Loop = new_loop(#{max_queue => 100}),
    First = tokamak_id:next(?PRODUCERS),
    _ = tokamak_test_nif:producers(),
    ok = tokamak_test_nif:start_producers(tokamak_nif:table(), Loop, ?PRODUCERS, 1000, First, 0),
    all_ended(#{refused => ?PRODUCERS, closed => 0, failed => 0}),
    Events = tokamak_loop:poll(Loop, 0),
    %% Producers that are refused at the same time may have kept each other out.
    ?assert(length(Events) =< 100),
    ?assert(length(Events) > 100 - ?PRODUCERS),
    [
        begin
            Own = [N || {I, user, N} <- Events, I =:= Id],
            ?assertEqual(lists:seq(0, length(Own) - 1), Own)
        end
     || Id <- lists:seq(First, First + ?PRODUCERS - 1)
    ].

closed() ->
    Loop = new_loop(#{max_queue => 100}),
    _ = start(Loop, 1000),
    tokamak_test:wait_until(fun() -> maps:get(queued, tokamak_loop:info(Loop)) >= 100 end),
    ok = tokamak_loop:destroy(Loop),
    all_ended(#{refused => 0, closed => ?PRODUCERS, failed => 0}).

dropped() ->
    ok = tokamak_test:in_process(fun() ->
        Loop = raw_loop(#{max_queue => 100}),
        _ = start(Loop, 1000),
        ok
    end),
    all_ended(#{refused => 0, closed => ?PRODUCERS, failed => 0}).
