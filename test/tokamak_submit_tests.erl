%% SPDX-License-Identifier: Apache-2.0
-module(tokamak_submit_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, key/0, counted/1, live/1, until/1, collect/2]).

submit_test_() ->
    call_fixture:tests([
        fun a_result_is_an_event/0,
        fun a_failure_is_an_event/0,
        fun a_handler_gets_the_results_of_its_id/0,
        fun many_are_submitted_in_one_call/0,
        fun very_many_are_started_on_a_dirty_scheduler/0,
        fun a_loop_with_many_calls_open_is_destroyed_at_once/0,
        fun a_full_loop_refuses_and_nothing_starts/0,
        fun results_have_their_places_in_a_full_loop/0,
        fun the_end_of_the_loop_cancels/0,
        fun a_raw_loop_takes_results_too/0,
        fun the_death_of_the_submitter_cancels_nothing/0,
        fun an_operation_tells_its_loop_how_far_it_is/0,
        fun a_closed_loop_refuses/0,
        fun wrong_arguments_of_the_operation_are_returned/0,
        fun wrong_arguments_of_the_submission_raise/0,
        fun an_unknown_operation_is_returned_and_nothing_starts/0
    ]).

overload_test_() ->
    call_fixture:tests(#{max_in_flight => 10}, [fun more_than_may_be_in_flight_are_refused/0]).

with_loop(Options, Test) ->
    {ok, Loop} = tokamak_loop:new(Options),
    Test(Loop),
    ok = tokamak_loop:destroy(Loop).

with_loop(Test) ->
    with_loop(#{}, Test).

a_result_is_an_event() ->
    with_loop(fun(Loop) ->
        Calls = [{1, echo, [a]}, {2, sleep, [1]}, {3, op(later), [b, 100]}, {4, op(block), [key(), 1]}],
        [?assertEqual(ok, tokamak_loop:submit(Loop, Id, Op, Args)) || {Id, Op, Args} <- Calls],
        Events = [{1, async_result, a}, {2, async_result, ok}, {3, async_result, b}, {4, async_result, ok}],
        ?assertEqual(Events, collect(Loop, 4))
    end).

a_failure_is_an_event() ->
    with_loop(fun(Loop) ->
        Calls = [{1, op(fails), [3]}, {2, op(panics), [<<"p">>]}, {3, op(panics_blocking), [<<"p">>]}],
        ok = tokamak_loop:submit_many(Loop, Calls),
        Events = [
            {1, async_error, {exhausted, <<"no more">>}},
            {2, async_error, {panic, <<"p">>}},
            {3, async_error, {panic, <<"p">>}}
        ],
        ?assertEqual(Events, collect(Loop, 3)),
        ok = tokamak_loop:submit_many(Loop, [{1, op(unencodable), []}]),
        ?assertMatch([{1, _, {encode, <<"in the encoder">>}}], collect(Loop, 1))
    end).

a_handler_gets_the_results_of_its_id() ->
    {ok, Loop} = tokamak_loop:new(),
    Ref = tokamak_loop:register(Loop, 1, self()),
    ok = tokamak_loop:submit_many(Loop, [{1, echo, [a]}, {2, echo, [b]}]),
    receive
        {tokamak, Ref, Event} -> ?assertEqual({event, 1, async_result, a}, Event)
    end,
    ?assertEqual([{2, async_result, b}], collect(Loop, 1)),
    ok = tokamak_loop:destroy(Loop),
    receive
        {tokamak, Ref, Last} -> ?assertEqual(closed, Last)
    end.

many_are_submitted_in_one_call() ->
    with_loop(fun(Loop) ->
        Calls = [{N, op(later_in_runtime), [N, N rem 100]} || N <- lists:seq(1, 10000)],
        ?assertEqual(ok, tokamak_loop:submit_many(Loop, Calls)),
        ?assertEqual([{N, async_result, N} || N <- lists:seq(1, 10000)], collect(Loop, 10000)),
        Mixed = [{1, echo, [1]}, {2, op(later), [2, 0]}, {3, echo, [3]}],
        ?assertEqual(ok, tokamak_loop:submit_many(Loop, Mixed)),
        ?assertEqual([{N, async_result, N} || N <- [1, 2, 3]], collect(Loop, 3)),
        ?assertEqual(ok, tokamak_loop:submit_many(Loop, []))
    end).

very_many_are_started_on_a_dirty_scheduler() ->
    with_loop(fun(Loop) ->
        Submit = fun(Count) -> ok = tokamak_loop:submit_many(Loop, [{N, echo, [N]} || N <- lists:seq(1, Count)]) end,
        ?assert(call_fixture:calls_native(op_submit_many, 2, fun() -> Submit(5000) end)),
        ?assertNot(call_fixture:calls_native(op_submit_many, 2, fun() -> Submit(100) end)),
        ?assertEqual(5100, length(collect(Loop, 5100)))
    end).

%% Each call is cancelled, which would take a hundred milliseconds.
a_loop_with_many_calls_open_is_destroyed_at_once() ->
    {ok, Loop} = tokamak_loop:new(),
    [ok = tokamak_loop:submit(Loop, N, sleep, [60000]) || N <- lists:seq(1, 50000)],
    {Elapsed, ok} = call_fixture:elapsed(fun() -> tokamak_loop:destroy(Loop) end),
    until(fun() -> call_fixture:in_flight() =:= 0 end),
    ok = tokamak_test:in_time(Elapsed, 40).

a_full_loop_refuses_and_nothing_starts() ->
    with_loop(#{max_queue => 10}, fun(Loop) ->
        Key = key(),
        Calls = [{N, op(two_at_once), [Key, 0]} || N <- lists:seq(1, 11)],
        ?assertEqual({error, overloaded}, tokamak_loop:submit_many(Loop, Calls)),
        ?assertEqual({0, 0, 0}, counted(Key)),
        ?assertEqual(ok, tokamak_loop:submit_many(Loop, tl(Calls))),
        ?assertEqual({error, overloaded}, tokamak_loop:submit(Loop, 1, echo, [1])),
        ?assertEqual(10, length(collect(Loop, 10))),
        ?assertEqual(ok, tokamak_loop:submit(Loop, 1, echo, [1])),
        ?assertEqual([{1, async_result, 1}], collect(Loop, 1))
    end).

results_have_their_places_in_a_full_loop() ->
    with_loop(#{max_queue => 10}, fun(Loop) ->
        ok = tokamak_loop:submit_many(Loop, [{N, sleep, [20]} || N <- lists:seq(1, 5)]),
        Posted = [tokamak_loop:post(Loop, 100, user, N) || N <- lists:seq(1, 10)],
        ?assertEqual(5, length([ok || ok <- Posted])),
        Events = collect(Loop, 10),
        ?assertEqual(5, length([Id || {Id, async_result, ok} <- Events]))
    end).

the_end_of_the_loop_cancels() ->
    Key = key(),
    {ok, Loop} = tokamak_loop:new(),
    ok = tokamak_loop:submit_many(Loop, [{N, op(never), [Key]} || N <- lists:seq(1, 100)]),
    until(fun() -> live(Key) =:= 100 end),
    ok = tokamak_loop:destroy(Loop),
    until(fun() -> live(Key) =:= 0 end),
    until(fun() -> call_fixture:in_flight() =:= 0 end).

a_raw_loop_takes_results_too() ->
    {ok, Loop} = tokamak_loop:open(#{}),
    ok = tokamak_loop:submit(Loop, 1, op(later), [a, 100]),
    receive
        {tokamak, Loop, ready} -> ok
    end,
    ?assertEqual({empty, [{1, async_result, a}]}, tokamak_loop:drain(Loop)),
    ok = tokamak_loop:destroy(Loop).

the_death_of_the_submitter_cancels_nothing() ->
    with_loop(fun(Loop) ->
        Submitter = call_fixture:started(fun() -> tokamak_loop:submit(Loop, 1, sleep, [20]) end),
        ?assertEqual(ok, call_fixture:result(Submitter)),
        ?assertEqual([{1, async_result, ok}], collect(Loop, 1))
    end).

an_operation_tells_its_loop_how_far_it_is() ->
    with_loop(fun(Loop) ->
        ok = tokamak_loop:submit(Loop, 1, op(tells), [3]),
        Events = [{1, async_result, true} | [{1, user, N} || N <- [1, 2, 3]]],
        ?assertEqual(lists:sort(Events), collect(Loop, 4))
    end),
    ?assertEqual({ok, false}, tokamak:call(op(tells), [1])).

a_closed_loop_refuses() ->
    {ok, Loop} = tokamak_loop:new(),
    ok = tokamak_loop:destroy(Loop),
    ?assertEqual({error, closed}, tokamak_loop:submit(Loop, 1, echo, [1])),
    ?assertEqual({error, closed}, tokamak_loop:submit_many(Loop, [{1, op(later), [1, 0]}])).

wrong_arguments_of_the_operation_are_returned() ->
    with_loop(fun(Loop) ->
        ?assertMatch({error, {badarg, "its element 1 is not a u64"}}, tokamak_loop:submit(Loop, 1, sleep, [x])),
        ?assertMatch({error, {badarg, "not a list of" ++ _}}, tokamak_loop:submit(Loop, 1, sleep, [])),
        Key = key(),
        Calls = [{1, op(two_at_once), [Key, 0]}, {2, op(two_at_once), [Key, x]}],
        ?assertMatch({error, {badarg, _}}, tokamak_loop:submit_many(Loop, Calls)),
        ?assertEqual({0, 0, 0}, counted(Key))
    end).

wrong_arguments_of_the_submission_raise() ->
    with_loop(fun(Loop) ->
        [
            ?assertError(badarg, tokamak_loop:submit(Handle, Id, Op, Args))
         || {Handle, Id, Op, Args} <- [
                {make_ref(), 1, echo, [1]}, {Loop, 0, echo, [1]}, {Loop, 1, "echo", [1]}, {Loop, 1, echo, x}
            ]
        ],
        [
            ?assertError(badarg, tokamak_loop:submit_many(Loop, Calls))
         || Calls <- [x, [x], [{1, echo}], [{-1, echo, []}], [{1, echo, [1]} | x]]
        ]
    end).

an_unknown_operation_is_returned_and_nothing_starts() ->
    with_loop(fun(Loop) ->
        Key = key(),
        Unknown = {error, {unknown_operation, op(none)}},
        ?assertEqual(Unknown, tokamak_loop:submit(Loop, 1, op(none), [])),
        Calls = [{1, op(two_at_once), [Key, 0]}, {2, op(none), []}],
        ?assertEqual(Unknown, tokamak_loop:submit_many(Loop, Calls)),
        ?assertEqual({error, {wrong_kind, stream}}, tokamak_loop:submit(Loop, 1, count, [1, 1])),
        ?assertEqual({0, 0, 0}, counted(Key))
    end).

more_than_may_be_in_flight_are_refused() ->
    with_loop(fun(Loop) ->
        Calls = [{N, sleep, [1]} || N <- lists:seq(1, 11)],
        ?assertEqual({error, overloaded}, tokamak_loop:submit_many(Loop, Calls)),
        ?assertEqual(ok, tokamak_loop:submit_many(Loop, tl(Calls))),
        ?assertEqual(10, length(collect(Loop, 10)))
    end).
