%% SPDX-License-Identifier: Apache-2.0
-module(tokamak_blocking_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, key/0, counted/1, live/1, until/1]).

blocking_test_() ->
    call_fixture:tests(#{max_blocking_threads => 4}, [
        fun a_pool_that_is_all_asleep_delays_no_operation_no_timer_and_no_descriptor/0,
        fun the_pool_is_bounded_and_the_rest_waits_its_turn/0,
        fun a_call_that_waits_for_the_pool_can_be_cancelled/0,
        fun a_blocking_call_that_nobody_waits_for_keeps_its_thread_until_it_returns/0
    ]).

%% Without the pool asleep p99 is well under a millisecond; 20 leaves room for a busy machine.
a_pool_that_is_all_asleep_delays_no_operation_no_timer_and_no_descriptor() ->
    Key = key(),
    {ok, Loop} = tokamak_loop:new(),
    {ok, Read, Write} = tokamak_fd:pipe(),
    Refs = [tokamak:async(op(block_until_cancelled), [Key]) || _ <- lists:seq(1, 50)],
    until(fun() -> live(Key) =:= 4 end),
    Rounds = [
        fun() -> {ok, 1} = tokamak:call(op(later_in_runtime), [1, 1000]) end,
        fun() ->
            Timer = tokamak_loop:start_timer(Loop, 1, 1),
            [{1, timer, Timer}] = tokamak_loop:poll(Loop, 5000)
        end,
        fun() ->
            ok = tokamak_loop:add_reader(Loop, Read, 2),
            {ok, 1} = tokamak_fd:write(Write, <<1>>),
            [{2, read, _}] = tokamak_loop:poll(Loop, 5000),
            {ok, <<1>>} = tokamak_fd:read(Read, 10),
            ok = tokamak_loop:remove_reader(Loop, Read)
        end
    ],
    Times = [percentile99(Round) || Round <- Rounds],
    lists:foreach(fun tokamak:cancel/1, Refs),
    until(fun() -> live(Key) =:= 0 end),
    ok = tokamak_fd:close(Read),
    ok = tokamak_fd:close(Write),
    ok = tokamak_loop:destroy(Loop),
    ok = tokamak_test:in_time(lists:max(Times), 20000).

percentile99(Round) ->
    Times = lists:sort([element(1, timer:tc(Round)) || _ <- lists:seq(1, 200)]),
    lists:nth(198, Times).

the_pool_is_bounded_and_the_rest_waits_its_turn() ->
    Key = key(),
    {ok, _} = tokamak:gather([{op(block), [Key, 5]} || _ <- lists:seq(1, 40)]),
    ?assertEqual({0, 4, 40}, counted(Key)).

a_call_that_waits_for_the_pool_can_be_cancelled() ->
    [Asleep, Waiting] = [key(), key()],
    Refs = [tokamak:async(op(block_until_cancelled), [Asleep]) || _ <- lists:seq(1, 4)],
    until(fun() -> live(Asleep) =:= 4 end),
    ?assertEqual({error, timeout}, tokamak:call(op(block), [Waiting, 0], #{timeout => 10})),
    lists:foreach(fun tokamak:cancel/1, Refs),
    ?assertEqual({ok, ok}, tokamak:call(op(block), [Waiting, 0])),
    ?assertEqual({0, 1, 1}, counted(Waiting)).

a_blocking_call_that_nobody_waits_for_keeps_its_thread_until_it_returns() ->
    Key = key(),
    %% So long that the last one begins before the first one ends, on a busy machine too.
    Refs = [tokamak:async(op(block), [Key, 1000]) || _ <- lists:seq(1, 4)],
    until(fun() -> live(Key) =:= 4 end),
    lists:foreach(fun tokamak:cancel/1, Refs),
    ?assertEqual({ok, ok}, tokamak:call(op(block), [Key, 0])),
    %% It took the first thread that was free, so others may still be asleep.
    tokamak_test:wait_for({0, 4, 5}, fun() -> counted(Key) end).
