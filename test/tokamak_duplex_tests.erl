%% SPDX-License-Identifier: Apache-2.0
-module(tokamak_duplex_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, key/0, live/1, until/1, elapsed/1, started/1, result/1]).

duplex_test_() ->
    call_fixture:tests([
        fun what_is_pushed_comes_back_transformed/0,
        fun the_inbox_takes_its_size_and_then_a_push_waits/0,
        fun a_push_that_waits_goes_on_when_there_is_room/0,
        fun a_push_to_an_operation_that_ended_is_closed/0,
        fun a_push_that_waits_is_told_of_the_end/0,
        fun an_operation_that_nobody_reads_takes_no_more_input/0,
        fun an_item_of_another_type_raises_and_says_which_it_takes/0,
        fun a_failure_is_the_last_item_once/0,
        fun a_panic_is_the_last_item_once/0,
        fun close_ends_the_operation/0,
        fun a_push_after_a_close_is_closed_at_once/0,
        fun every_task_that_sends_learns_that_nobody_takes_any_more/0,
        fun pushes_that_wait_leave_no_message/0,
        fun binaries_go_there_and_back/0,
        fun a_thousand_sessions_live_side_by_side/0
    ]).

what_is_pushed_comes_back_transformed() ->
    Session = tokamak:open(op(sums), [100]),
    Sums = [
        begin
            ok = tokamak:push(Session, N),
            {ok, Sum} = tokamak:next(Session),
            Sum
        end
     || N <- lists:seq(1, 4)
    ],
    ?assertEqual([101, 103, 106, 110], Sums),
    ok = tokamak:close(Session).

the_inbox_takes_its_size_and_then_a_push_waits() ->
    Session = tokamak:open(op(takes_nothing), [key()], #{inbox => 3}),
    ?assertEqual([ok, ok, ok], [tokamak:push(Session, N, 0) || N <- [1, 2, 3]]),
    ?assertEqual({error, timeout}, tokamak:push(Session, 4, 0)),
    {Elapsed, Result} = elapsed(fun() -> tokamak:push(Session, 4, 30) end),
    ?assertEqual({error, timeout}, Result),
    ?assert(Elapsed >= 30),
    ok = tokamak:close(Session).

a_push_that_waits_goes_on_when_there_is_room() ->
    Session = tokamak:open(op(sums), [0], #{inbox => 1, window => 1}),
    Pushes = [tokamak:push(Session, 1, 0) || _ <- lists:seq(1, 10)],
    Taken = length([ok || ok <- Pushes]),
    ?assert(Taken < 10),
    [{ok, N} = tokamak:next(Session) || N <- lists:seq(1, Taken)],
    ok = tokamak:push(Session, 1),
    ok = tokamak:close(Session).

a_push_to_an_operation_that_ended_is_closed() ->
    Session = tokamak:open(op(takes), [1]),
    ?assertEqual(ok, tokamak:push(Session, 1)),
    until(fun() -> tokamak:push(Session, 2, 0) =:= {error, closed} end),
    ?assertEqual(done, tokamak:next(Session)),
    ?assertEqual({error, closed}, tokamak:next(Session)),
    ?assertEqual({error, closed}, tokamak:push(Session, 3)),
    ?assertEqual(ok, tokamak:close(Session)).

a_push_that_waits_is_told_of_the_end() ->
    Session = tokamak:open(op(takes), [3], #{inbox => 1}),
    {Elapsed, Ends} = elapsed(fun() -> [tokamak:push(Session, N) || N <- lists:seq(1, 6)] end),
    ?assertMatch([ok, ok, ok | _], Ends),
    ?assertEqual({error, closed}, lists:last(Ends)),
    ok = tokamak:close(Session),
    ok = tokamak_test:in_time(Elapsed, 1000).

%% Its window holds it, and its inbox holds the pusher.
an_operation_that_nobody_reads_takes_no_more_input() ->
    Session = tokamak:open(op(sums), [0], #{inbox => 4, window => 4}),
    Pushed = length([ok || _ <- lists:seq(1, 100), ok =:= tokamak:push(Session, 1, 1)]),
    %% One more in the hands of the operation.
    ?assertEqual(4 + 4 + 1, Pushed),
    ?assertEqual([{ok, N} || N <- lists:seq(1, 9)], [tokamak:next(Session) || _ <- lists:seq(1, 9)]),
    ok = tokamak:close(Session).

an_item_of_another_type_raises_and_says_which_it_takes() ->
    Session = tokamak:open(op(sums), [0]),
    Explained = call_fixture:explanation(fun() -> tokamak:push(Session, "text") end),
    ?assertMatch(#{2 := "not an item of Inbox" ++ _}, Explained),
    ok = tokamak:push(Session, 1),
    ?assertEqual({ok, 1}, tokamak:next(Session)),
    ok = tokamak:close(Session).

a_failure_is_the_last_item_once() ->
    Session = tokamak:open(op(takes_one_and_fails), []),
    ok = tokamak:push(Session, 7),
    Taken = [tokamak:next(Session) || _ <- [1, 2, 3]],
    ?assertEqual([{ok, 7}, {error, {exhausted, <<"no more">>}}, {error, closed}], Taken).

a_panic_is_the_last_item_once() ->
    Session = tokamak:open(op(takes_one_and_panics), []),
    ok = tokamak:push(Session, <<"oh">>),
    {Elapsed, End} = elapsed(fun() -> tokamak:next(Session) end),
    ?assertEqual({error, {panic, <<"oh">>}}, End),
    ?assertEqual({error, closed}, tokamak:next(Session)),
    ?assertEqual({error, closed}, tokamak:push(Session, <<"oh">>)),
    ok = tokamak_test:in_time(Elapsed, 100).

close_ends_the_operation() ->
    Key = key(),
    Session = tokamak:open(op(takes_nothing), [Key]),
    until(fun() -> live(Key) =:= 1 end),
    ?assertEqual(ok, tokamak:close(Session)),
    until(fun() -> live(Key) =:= 0 end),
    until(fun() -> tokamak:push(Session, 1) =:= {error, closed} end),
    ?assertEqual({error, closed}, tokamak:next(Session)).

%% Also before the operation has noticed.
a_push_after_a_close_is_closed_at_once() ->
    [
        begin
            Session = tokamak:open(op(sums), [0]),
            ok = tokamak:push(Session, 1),
            ok = tokamak:close(Session),
            ?assertEqual({error, closed}, tokamak:push(Session, 2))
        end
     || _ <- lists:seq(1, 100)
    ].

every_task_that_sends_learns_that_nobody_takes_any_more() ->
    Closed = many_send(),
    ok = tokamak:close(element(2, Closed)),
    Ended = many_send(),
    ok = tokamak:push(element(2, Ended), 1),
    Owner = started(fun() -> element(1, many_send()) end),
    [until(fun() -> live(Key) =:= 0 end) || Key <- [element(1, Closed), element(1, Ended), result(Owner)]].

%% Five tasks that wait for room.
many_send() ->
    Key = key(),
    Session = tokamak:open(op(many_send), [Key, 5], #{window => 2}),
    until(fun() -> live(Key) =:= 5 end),
    [{ok, _} = tokamak:next(Session) || _ <- lists:seq(1, 20)],
    {Key, Session}.

pushes_that_wait_leave_no_message() ->
    Session = tokamak:open(op(takes), [20000], #{inbox => 1}),
    [ok = tokamak:push(Session, N) || N <- lists:seq(1, 20000)],
    ?assertEqual(done, tokamak:next(Session)).

binaries_go_there_and_back() ->
    Session = tokamak:open(op(mirrors), []),
    [
        begin
            Binary = binary:copy(<<Size>>, Size),
            ok = tokamak:push(Session, Binary),
            ?assertEqual({ok, Binary}, tokamak:next(Session))
        end
     || Size <- [0, 1, 64, 256, 257, 65536, 1000000]
    ],
    ok = tokamak:close(Session).

a_thousand_sessions_live_side_by_side() ->
    Sessions = [tokamak:open(op(sums), [N]) || N <- lists:seq(1, 1000)],
    [ok = tokamak:push(Session, 1) || Session <- Sessions],
    ?assertEqual([{ok, N + 1} || N <- lists:seq(1, 1000)], [tokamak:next(Session) || Session <- Sessions]),
    lists:foreach(fun tokamak:close/1, Sessions).
