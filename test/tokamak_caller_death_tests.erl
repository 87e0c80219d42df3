%% SPDX-License-Identifier: Apache-2.0
-module(tokamak_caller_death_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, key/0, live/1, until/1, elapsed/1]).

caller_death_test_() ->
    call_fixture:tests([
        fun the_death_of_a_caller_cancels_its_calls_within_100_ms/0,
        fun a_reference_that_lives_elsewhere_keeps_no_call_alive/0,
        fun the_death_of_a_caller_ends_its_streams/0,
        fun the_death_of_a_caller_cancels_its_gathers/0,
        fun the_death_of_a_caller_cancels_calls_that_wait_for_a_limit/0,
        fun nothing_is_left_of_ten_thousand_callers/0
    ]).

the_death_of_a_caller_cancels_its_calls_within_100_ms() ->
    Key = key(),
    dies_with_caller(Key, 3, fun() ->
        _ = tokamak:async(op(never), [Key]),
        _ = tokamak:async(op(never_eagerly), [Key]),
        tokamak:call(op(block_until_cancelled), [Key])
    end).

a_reference_that_lives_elsewhere_keeps_no_call_alive() ->
    Key = key(),
    Self = self(),
    dies_with_caller(Key, 1, fun() ->
        Self ! {reference, tokamak:async(op(never), [Key])},
        receive
        after infinity -> ok
        end
    end),
    receive
        {reference, Ref} -> ?assertError(not_owner, tokamak:await(Ref))
    end.

the_death_of_a_caller_ends_its_streams() ->
    Key = key(),
    dies_with_caller(Key, 2, fun() ->
        _ = tokamak:open(op(takes_nothing), [Key]),
        tokamak:next(tokamak:stream(op(silence), [Key]), infinity)
    end).

the_death_of_a_caller_cancels_its_gathers() ->
    Key = key(),
    dies_with_caller(Key, 50, fun() -> tokamak:gather([{op(never), [Key]} || _ <- lists:seq(1, 50)]) end).

the_death_of_a_caller_cancels_calls_that_wait_for_a_limit() ->
    Key = key(),
    dies_with_caller(Key, 2, fun() ->
        _ = [tokamak:async(op(two_at_once), [Key, 60000]) || _ <- lists:seq(1, 10)],
        receive
        after infinity -> ok
        end
    end),
    ?assertEqual({ok, ok}, tokamak:call(op(two_at_once), [Key, 0])).

dies_with_caller(Key, Count, Fun) ->
    Caller = spawn(Fun),
    until(fun() -> live(Key) =:= Count end),
    {Elapsed, ok} = elapsed(fun() ->
        exit(Caller, kill),
        until(fun() -> live(Key) =:= 0 andalso call_fixture:in_flight() =:= 0 end)
    end),
    ok = tokamak_test:in_time(Elapsed, 100).

nothing_is_left_of_ten_thousand_callers() ->
    Key = key(),
    Callers = [spawn_monitor(fun() -> tokamak:call(op(never), [Key]) end) || _ <- lists:seq(1, 10000)],
    until(fun() -> live(Key) =:= 10000 end),
    [exit(Pid, kill) || {Pid, _} <- Callers],
    until(fun() -> live(Key) =:= 0 end),
    until(fun() -> maps:get(owners, tokamak:stats()) =< 5 end),
    [
        receive
            {'DOWN', Monitor, process, _, _} -> ok
        end
     || {_, Monitor} <- Callers
    ].
