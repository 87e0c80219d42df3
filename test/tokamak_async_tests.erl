%% SPDX-License-Identifier: Apache-2.0
-module(tokamak_async_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, key/0, counted/1, live/1, until/1, elapsed/1, started/1, result/1]).

async_test_() ->
    call_fixture:tests([
        fun the_end_comes_as_a_message_with_the_reference/0,
        fun await_takes_the_end/0,
        fun a_second_await_finds_the_call_closed/0,
        fun the_end_may_be_taken_by_receive_and_the_call_is_closed_then/0,
        fun a_refused_call_has_its_end_in_the_mailbox/0,
        fun an_await_that_times_out_cancels/0,
        fun an_await_of_zero_returns_an_end_that_is_there/0,
        fun await_many_keeps_the_order_of_its_references/0,
        fun await_many_cancels_what_is_not_ready_in_time/0,
        fun await_any_returns_the_first_end_and_leaves_the_others_running/0,
        fun await_any_cancels_all_when_none_ends_in_time/0,
        fun await_any_finds_a_call_closed_that_was_cancelled/0,
        fun await_any_finds_a_call_closed_whose_end_was_taken/0,
        fun await_any_prefers_an_end_that_is_there/0,
        fun cancel_drops_the_future_and_no_message_comes/0,
        fun cancel_after_the_end_takes_its_message/0,
        fun cancel_twice_is_ok/0,
        fun cancel_races_with_the_end_and_leaves_no_message/0,
        fun a_blocking_call_sees_that_it_was_cancelled/0,
        fun work_that_was_handed_on_is_told_of_a_cancel/0,
        fun dropping_a_reference_cancels_nothing/0,
        fun another_process_can_neither_await_nor_cancel/0,
        fun an_await_of_calls_that_are_not_all_the_callers_takes_none/0,
        fun progress_during_an_await_has_the_reference_of_the_call/0,
        fun messages_in_the_mailbox_do_not_slow_an_await/0,
        fun a_hundred_thousand_calls_wait_at_once/0
    ]).

the_end_comes_as_a_message_with_the_reference() ->
    Refs = [
        tokamak:async(echo, [1]),
        tokamak:async(sleep, [1]),
        tokamak:async(op(later), [1, 500]),
        tokamak:async(op(block), [key(), 1]),
        tokamak:async(op(fails), [3])
    ],
    Ends = [receive {tokamak, Ref, End} -> End end || Ref <- Refs],
    ?assertEqual([{ok, 1}, {ok, ok}, {ok, 1}, {ok, ok}, {error, {exhausted, <<"no more">>}}], Ends).

await_takes_the_end() ->
    ?assertEqual({ok, 1}, tokamak:await(tokamak:async(echo, [1]))),
    ?assertEqual({ok, ok}, tokamak:await(tokamak:async(sleep, [20]), infinity)).

a_second_await_finds_the_call_closed() ->
    Refs = [tokamak:async(echo, [1]), tokamak:async(sleep, [1])],
    [{ok, _} = tokamak:await(Ref) || Ref <- Refs],
    [?assertEqual({error, closed}, tokamak:await(Ref)) || Ref <- Refs].

the_end_may_be_taken_by_receive_and_the_call_is_closed_then() ->
    Ref = tokamak:async(sleep, [1]),
    receive
        {tokamak, Ref, End} -> ?assertEqual({ok, ok}, End)
    end,
    until(fun() -> tokamak:await(Ref) =:= {error, closed} end),
    ?assertEqual(ok, tokamak:cancel(Ref)).

a_refused_call_has_its_end_in_the_mailbox() ->
    Unknown = [none, op(none), {no_such_module, name}, {lists, name}],
    [
        ?assertEqual({error, {unknown_operation, Op}}, tokamak:await(tokamak:async(Op, [])))
     || Op <- Unknown
    ],
    ?assertEqual({error, {wrong_kind, stream}}, tokamak:await(tokamak:async(count, [1, 1]))),
    Ref = tokamak:async({no_such_module, name}, []),
    ?assertEqual(ok, tokamak:cancel(Ref)),
    ?assertEqual({error, closed}, tokamak:await(Ref)).

an_await_that_times_out_cancels() ->
    Key = key(),
    Ref = tokamak:async(op(never), [Key]),
    until(fun() -> live(Key) =:= 1 end),
    ?assertEqual({error, timeout}, tokamak:await(Ref, 10)),
    until(fun() -> live(Key) =:= 0 end),
    ?assertEqual({error, closed}, tokamak:await(Ref, 10)).

an_await_of_zero_returns_an_end_that_is_there() ->
    ?assertEqual({ok, 1}, tokamak:await(tokamak:async(echo, [1]), 0)),
    ?assertEqual({error, timeout}, tokamak:await(tokamak:async(op(never), [key()]), 0)).

await_many_keeps_the_order_of_its_references() ->
    Refs = [tokamak:async(op(later), [N, (20 - N) * 500]) || N <- lists:seq(1, 20)],
    ?assertEqual([{ok, N} || N <- lists:seq(1, 20)], tokamak:await_many(Refs, 5000)),
    ?assertEqual([], tokamak:await_many([], 0)).

await_many_cancels_what_is_not_ready_in_time() ->
    Key = key(),
    Refs = [tokamak:async(op(never), [Key]), tokamak:async(echo, [2]), tokamak:async(op(never), [Key])],
    {Elapsed, Ends} = elapsed(fun() -> tokamak:await_many(Refs, 50) end),
    ?assertEqual([{error, timeout}, {ok, 2}, {error, timeout}], Ends),
    until(fun() -> live(Key) =:= 0 end),
    ok = tokamak_test:in_time(Elapsed, 150).

await_any_returns_the_first_end_and_leaves_the_others_running() ->
    Slow = tokamak:async(op(later), [slow, 50000]),
    Fast = tokamak:async(op(later), [fast, 100]),
    ?assertEqual({Fast, {ok, fast}}, tokamak:await_any([Slow, Fast], 5000)),
    ?assertEqual({Slow, {ok, slow}}, tokamak:await_any([Slow], 5000)).

await_any_cancels_all_when_none_ends_in_time() ->
    Key = key(),
    Refs = [tokamak:async(op(never), [Key]) || _ <- lists:seq(1, 3)],
    ?assertEqual({error, timeout}, tokamak:await_any(Refs, 10)),
    until(fun() -> live(Key) =:= 0 end).

await_any_finds_a_call_closed_that_was_cancelled() ->
    Ref = tokamak:async(op(never), [key()]),
    ok = tokamak:cancel(Ref),
    ?assertEqual({Ref, {error, closed}}, tokamak:await_any([Ref], 10)).

await_any_finds_a_call_closed_whose_end_was_taken() ->
    Take = fun(Ref) -> receive {tokamak, Ref, End} -> End end end,
    Running = tokamak:async(op(never), [key()]),
    [
        begin
            Ref = tokamak:async(Op, [1]),
            {ok, _} = TakeEnd(Ref),
            ?assertEqual({Ref, {error, closed}}, tokamak:await_any([Running, Ref], infinity))
        end
     || Op <- [echo, sleep], TakeEnd <- [Take, fun tokamak:await/1]
    ],
    ok = tokamak:cancel(Running).

await_any_prefers_an_end_that_is_there() ->
    Refs = [Taken, There] = [tokamak:async(echo, [N]) || N <- [1, 2]],
    {ok, 1} = tokamak:await(Taken),
    ?assertEqual({There, {ok, 2}}, tokamak:await_any(Refs, infinity)).

cancel_drops_the_future_and_no_message_comes() ->
    Key = key(),
    Refs = [tokamak:async(op(never), [Key]) || _ <- lists:seq(1, 100)],
    until(fun() -> live(Key) =:= 100 end),
    [?assertEqual(ok, tokamak:cancel(Ref)) || Ref <- Refs],
    until(fun() -> live(Key) =:= 0 end),
    ?assertEqual({error, closed}, tokamak:await(hd(Refs))).

cancel_after_the_end_takes_its_message() ->
    Refs = [tokamak:async(echo, [1]), tokamak:async(sleep, [1])],
    until(fun() -> process_info(self(), message_queue_len) =:= {message_queue_len, 2} end),
    [?assertEqual(ok, tokamak:cancel(Ref)) || Ref <- Refs].

cancel_twice_is_ok() ->
    Ref = tokamak:async(op(never), [key()]),
    ?assertEqual(ok, tokamak:cancel(Ref)),
    ?assertEqual(ok, tokamak:cancel(Ref)).

cancel_races_with_the_end_and_leaves_no_message() ->
    [
        ok = tokamak:cancel(tokamak:async(op(later_in_runtime), [N, N rem 50]))
     || N <- lists:seq(1, 20000)
    ].

a_blocking_call_sees_that_it_was_cancelled() ->
    Key = key(),
    Ref = tokamak:async(op(block_until_cancelled), [Key]),
    until(fun() -> live(Key) =:= 1 end),
    {Elapsed, ok} = elapsed(fun() -> tokamak:cancel(Ref) end),
    until(fun() -> live(Key) =:= 0 end),
    ok = tokamak_test:in_time(Elapsed, 100).

work_that_was_handed_on_is_told_of_a_cancel() ->
    Key = key(),
    Ref = tokamak:async(op(delegates), [Key]),
    until(fun() -> live(Key) =:= 1 end),
    ok = tokamak:cancel(Ref),
    until(fun() -> live(Key) =:= 0 end).

dropping_a_reference_cancels_nothing() ->
    Key = key(),
    _ = tokamak:async(op(two_at_once), [Key, 100]),
    erlang:garbage_collect(),
    receive
        {tokamak, _, End} -> ?assertEqual({ok, ok}, End)
    end,
    ?assertEqual({0, 1, 1}, counted(Key)).

another_process_can_neither_await_nor_cancel() ->
    Ref = tokamak:async(op(never), [key()]),
    Self = self(),
    spawn_link(fun() ->
        ?assertError(not_owner, tokamak:await(Ref)),
        ?assertError(not_owner, tokamak:cancel(Ref)),
        ?assertError(not_owner, tokamak:await_many([Ref], 10)),
        ?assertError(not_owner, tokamak:await_any([Ref], 10)),
        Self ! checked
    end),
    receive
        checked -> ok = tokamak:cancel(Ref)
    end.

an_await_of_calls_that_are_not_all_the_callers_takes_none() ->
    Mine = tokamak:async(echo, [1]),
    Others = result(started(fun() -> tokamak:async(echo, [2]) end)),
    ?assertError(not_owner, tokamak:await_many([Mine, Others], 1000)),
    ?assertError(not_owner, tokamak:await_any([Mine, Others], 1000)),
    ?assertEqual({ok, 1}, tokamak:await(Mine)).

progress_during_an_await_has_the_reference_of_the_call() ->
    Subscription = tokamak_progress:subscribe(all),
    Ref = tokamak:async(op(report_progress), [200000]),
    {ok, true} = tokamak:await(Ref, 30000),
    Keys = progressed(Subscription, []),
    ?assertEqual([Ref], lists:usort(Keys)).

progressed(Subscription, Keys) ->
    receive
        {tokamak, Subscription, {progress, Key, #{status := done}}} -> [Key | Keys];
        {tokamak, Subscription, {progress, Key, _}} -> progressed(Subscription, [Key | Keys])
    end.

messages_in_the_mailbox_do_not_slow_an_await() ->
    Await = fun() -> {ok, 1} = tokamak:await(tokamak:async(op(later_in_runtime), [1, 300])) end,
    [Empty, Full] = [median_of_awaits(Await, Messages) || Messages <- [0, 300000]],
    %% A look through this mailbox takes some milliseconds.
    ?assert(Full < Empty + 1000).

%% Messages off the heap, so that garbage collections do not look at them.
median_of_awaits(Await, Messages) ->
    {Pid, Monitor} = spawn_opt(
        fun() ->
            [self() ! {message, N} || N <- lists:seq(1, Messages)],
            Times = [element(1, timer:tc(Await)) || _ <- lists:seq(1, 51)],
            exit({median, lists:nth(26, lists:sort(Times))})
        end,
        [monitor, {message_queue_data, off_heap}]
    ),
    receive
        {'DOWN', Monitor, process, Pid, {median, Median}} -> Median
    end.

a_hundred_thousand_calls_wait_at_once() ->
    Refs = [tokamak:async(op(never), [0]) || _ <- lists:seq(1, 100000)],
    ?assertEqual(100000, call_fixture:in_flight()),
    ?assertEqual({ok, 1}, tokamak:call(op(later), [1, 100])),
    lists:foreach(fun tokamak:cancel/1, Refs),
    ?assertEqual(0, call_fixture:in_flight()).
