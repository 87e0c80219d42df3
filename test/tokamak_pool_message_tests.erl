%% SPDX-License-Identifier: Apache-2.0
%% Runs by their messages: results on credit, items that are added, the end.
-module(tokamak_pool_message_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, until/1, in_flight/0]).

messages_test_() ->
    call_fixture:tests([
        fun a_run_ends_when_it_is_closed_and_done/0,
        fun items_may_be_added_by_any_process_until_the_run_is_closed/0,
        fun a_refused_run_says_so_by_a_message/0,
        fun no_more_than_the_window_comes_without_an_ack/0,
        fun after_a_cancel_nothing_comes/0,
        fun only_the_owner_acknowledges_and_cancels/0,
        fun a_run_that_has_ended_takes_nothing_and_minds_nothing/0,
        fun the_last_result_and_the_end_come_within_10_ms/0,
        fun progress_ends_with_done/0
    ]).

a_run_ends_when_it_is_closed_and_done() ->
    Ref = tokamak_pool:start({op, op(tree)}, [999990], #{}),
    receive
        {tokamak, Ref, First} -> ?assertEqual({results, [{999990, {ok, 1999980}}]}, First)
    end,
    ok = tokamak_pool:ack(Ref, 1),
    ok = tokamak_pool:add(Ref, [999991]),
    ok = tokamak_pool:close(Ref),
    {Results, End} = tokamak_test:results(Ref),
    ?assertEqual([{999991, {ok, 1999982}}], Results),
    ?assertMatch({finished, #{succeeded := 2}}, End).

items_may_be_added_by_any_process_until_the_run_is_closed() ->
    Ref = tokamak_pool:start(fun(N) -> {ok, N, []} end, [], #{}),
    Add = fun(From) ->
        spawn_monitor(fun() -> ok = tokamak_pool:add(Ref, lists:seq(From, From + 999)) end)
    end,
    Adders = [Add(From) || From <- lists:seq(1, 10000, 1000)],
    [receive {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual(normal, Reason) end || {Pid, Monitor} <- Adders],
    ok = tokamak_pool:close(Ref),
    ?assertEqual({error, closed}, tokamak_pool:add(Ref, [1])),
    {Results, {finished, _}} = tokamak_test:results(Ref),
    ?assertEqual([{N, {ok, N}} || N <- lists:seq(1, 10000)], lists:sort(Results)).

a_refused_run_says_so_by_a_message() ->
    Ref = tokamak_pool:start({op, none}, [1], #{}),
    ?assertEqual({[], {error, {unknown_operation, none}}}, tokamak_test:results(Ref)),
    Other = tokamak_pool:start({op, {none, none}}, [1], #{}),
    ?assertEqual({[], {error, {unknown_operation, {none, none}}}}, tokamak_test:results(Other)),
    ok = tokamak_pool:cancel(Other).

no_more_than_the_window_comes_without_an_ack() ->
    Ref = tokamak_pool:start({op, op(endless)}, [1], #{window => 3}),
    until(fun() -> mailbox() =:= 3 end),
    receive
    after 50 -> ?assertEqual(3, mailbox())
    end,
    ok = tokamak_pool:ack(Ref, 2),
    until(fun() -> mailbox() =:= 5 end),
    ok = tokamak_pool:cancel(Ref).

after_a_cancel_nothing_comes() ->
    Cancel = fun(N) ->
        Ref = tokamak_pool:start({op, op(endless)}, [1], #{window => 100}),
        receive
        after N rem 5 -> ok
        end,
        ok = tokamak_pool:cancel(Ref),
        ?assertEqual(0, mailbox())
    end,
    lists:foreach(Cancel, lists:seq(1, 200)),
    receive
        Late -> error({late, Late})
    after 20 -> ok
    end.

only_the_owner_acknowledges_and_cancels() ->
    Ref = tokamak_pool:start({op, op(hangs)}, [1], #{}),
    {_, Monitor} = spawn_monitor(fun() ->
        ?assertError(not_owner, tokamak_pool:ack(Ref, 1)),
        ?assertError(not_owner, tokamak_pool:cancel(Ref))
    end),
    receive {'DOWN', Monitor, process, _, Reason} -> ?assertEqual(normal, Reason) end,
    ok = tokamak_pool:cancel(Ref).

a_run_that_has_ended_takes_nothing_and_minds_nothing() ->
    Ref = tokamak_pool:start({op, echo}, [], #{}),
    ok = tokamak_pool:close(Ref),
    ?assertMatch({[], {finished, _}}, tokamak_test:results(Ref)),
    ?assertEqual({error, closed}, tokamak_pool:add(Ref, [1])),
    ok = tokamak_pool:ack(Ref, 1),
    ok = tokamak_pool:close(Ref),
    ok = tokamak_pool:cancel(Ref).

the_last_result_and_the_end_come_within_10_ms() ->
    Measure = fun(_) ->
        Self = self(),
        Handler = fun(N) ->
            Self ! {ran, erlang:monotonic_time(microsecond)},
            {ok, N, []}
        end,
        {ok, _, _} = tokamak_pool:run(Handler, [1], #{}),
        Ended = erlang:monotonic_time(microsecond),
        receive {ran, Ran} -> Ended - Ran end
    end,
    Times = lists:sort(lists:map(Measure, lists:seq(1, 50))),
    ok = tokamak_test:in_time(lists:nth(25, Times), 10000).

progress_ends_with_done() ->
    Key = {crawl, make_ref()},
    Subscription = tokamak_progress:subscribe(Key),
    {ok, _, #{succeeded := Count}} = tokamak_pool:run(fun(N) -> {ok, N, [N + 1 || N < 500]} end, [1], #{progress => Key}),
    ?assertEqual(500, Count),
    Last = last_progress(Subscription, Key),
    ?assertEqual(#{done => 500, total => 500, percent => 100, status => done}, Last),
    ok = tokamak_progress:unsubscribe(Subscription).

last_progress(Ref, Key) ->
    receive
        {tokamak, Ref, {progress, Key, #{status := done} = Last}} -> Last;
        {tokamak, Ref, {progress, Key, #{status := running, done := Done, total := Total}}} when Done < Total ->
            last_progress(Ref, Key)
    after 5000 -> error(not_done)
    end.

mailbox() ->
    %% What came since the last receive that looked at the mailbox is not counted.
    receive
        nothing -> ok
    after 0 -> ok
    end,
    {message_queue_len, Length} = process_info(self(), message_queue_len),
    Length.
