%% SPDX-License-Identifier: Apache-2.0
%% What tokamak:stats/0 counts, against known traffic.
-module(tokamak_stats_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, key/0, until/1]).

%% One eager call in so many is timed, and stands for all of them in the count; see docs/counters.md.
-define(EAGER_SAMPLE, 64).
-define(ASYNC_SAMPLE, 8).
-define(WAKE_SAMPLE, 8).

stats_test_() ->
    call_fixture:tests(#{max_in_flight => 1000}, [
        fun every_call_that_ended_is_counted_under_its_kind/0,
        fun a_cancelled_call_has_ended_too/0,
        fun a_call_with_wrong_arguments_is_not_counted/0,
        fun of_eager_calls_the_count_is_an_estimate/0,
        fun one_async_call_in_eight_is_timed/0,
        fun calls_take_the_time_that_they_take/0,
        fun calls_of_all_engines_are_summed/0,
        fun refused_calls_are_counted/0,
        fun loops_count_what_goes_through_them/0,
        fun what_ended_loops_counted_stays_in_the_totals/0,
        fun refused_events_and_timers_are_counted/0,
        fun one_wake_in_eight_is_timed/0,
        fun the_time_from_wake_to_drain_is_that_of_the_consumer/0,
        fun runs_of_pools_are_counted_while_they_go_on_and_after/0,
        fun subprocesses_count_their_bytes/0,
        fun a_worker_that_is_busy_is_not_parked/0
    ]).

every_call_that_ended_is_counted_under_its_kind() ->
    Before = calls(),
    [{ok, ok} = tokamak:call(sleep, [0]) || _ <- lists:seq(1, 100)],
    {ok, _} = tokamak:await(tokamak:async(sleep, [1])),
    ok = tokamak:cast(sleep, [0]),
    [{ok, _} = tokamak:call(list_dir, ["/"]) || _ <- lists:seq(1, 7)],
    [{ok, 6} = tokamak:fold(fun erlang:'+'/2, 0, tokamak:stream(count, [3, 0])) || _ <- lists:seq(1, 5)],
    {ok, _} = tokamak:gather([{sleep, [0]} || _ <- lists:seq(1, 20)]),
    {ok, Loop} = tokamak_loop:new(),
    ok = tokamak_loop:submit_many(Loop, [{N, sleep, [0]} || N <- lists:seq(1, 30)]),
    30 = length(polled(Loop, 30)),
    ok = tokamak_loop:destroy(Loop),
    until(fun() ->
        #{async => 102, blocking => 7, stream => 5, gather => 1, submit => 1, duplex => 0, pool => 0} =:=
            maps:without([eager], counted_since(Before))
    end),
    #{parts := Parts} = maps:get(runtime, tokamak:stats()),
    ?assert(Parts >= 50).

polled(_Loop, 0) ->
    [];
polled(Loop, Left) ->
    Events = tokamak_loop:poll(Loop, 5000),
    Events ++ polled(Loop, Left - length(Events)).

a_cancelled_call_has_ended_too() ->
    Before = calls(),
    ok = tokamak:cancel(tokamak:async(sleep, [60000])),
    ?assertMatch(#{async := 1}, counted_since(Before)).

a_call_with_wrong_arguments_is_not_counted() ->
    Before = calls(),
    ?assertError(badarg, tokamak:call(sleep, [never])),
    ?assertError(badarg, tokamak:async(sleep, [never])),
    ?assertMatch(#{async := 0}, counted_since(Before)).

%% 200,000 calls are picked from by chance: of 3,125 samples, eight standard deviations are 450.
of_eager_calls_the_count_is_an_estimate() ->
    wait_for_clock(),
    #{eager := Before} = calls(),
    [{ok, N} = tokamak:call(echo, [N]) || N <- lists:seq(1, 200_000)],
    #{eager := #{count := Count, sampled := Sampled, p50 := Median}} = calls(),
    ?assertEqual(Count, ?EAGER_SAMPLE * Sampled),
    Estimate = Count - maps:get(count, Before),
    ?assert(Estimate > 170_000),
    ?assert(Estimate < 230_000),
    ?assert(Median < 1_000_000).

one_async_call_in_eight_is_timed() ->
    wait_for_clock(),
    %% An engine counts from the load of its library on, and is seen from its first call on.
    {ok, 0} = tokamak:call(op(yields), [0]),
    #{async := #{sampled := Before}} = calls(),
    [{ok, 0} = tokamak:call(op(yields), [0]) || _ <- lists:seq(1, 4000)],
    #{async := #{sampled := After}} = calls(),
    Share = (After - Before) / 4000,
    ?assert(Share > 0.5 / ?ASYNC_SAMPLE),
    ?assert(Share < 2 / ?ASYNC_SAMPLE).

calls_take_the_time_that_they_take() ->
    wait_for_clock(),
    Before = gathers(),
    {Microseconds, {ok, _}} = timer:tc(fun() -> tokamak:gather([{sleep, [50]}]) end),
    {1, 1, {Sum, [{End, 1}]}} = tokamak_stats:since(Before, gathers()),
    ?assert(Sum >= 50_000_000),
    ?assert(Sum =< 1000 * (Microseconds + 1)),
    %% The end of a bucket is above its values by an eighth at most.
    ?assert(Sum < End),
    ?assert(End =< Sum * 9 div 8 + 1).

gathers() ->
    #{engines := #{tokamak_nif := #{calls := #{gather := Timed}}}} = tokamak_stats:stats(),
    Timed.

calls_of_all_engines_are_summed() ->
    {ok, _} = tokamak:call(op(nothing), []),
    #{blocking := #{count := Before}} = calls(),
    {ok, _} = tokamak:call(op(block), [key(), 0]),
    {ok, _} = tokamak:call(list_dir, ["/"]),
    #{calls := #{blocking := #{count := After}}, engines := Engines} = tokamak:stats(),
    ?assertEqual(Before + 2, After),
    Each = [maps:get(count, Blocking) || #{calls := #{blocking := Blocking}} <- maps:values(Engines)],
    ?assertEqual(After, lists:sum(Each)).

refused_calls_are_counted() ->
    %% A call gives its place back a moment after its end.
    until(fun() -> #{runtime := #{in_flight := N}} = tokamak:stats(), N =:= 0 end),
    #{runtime := #{refused := Before}} = tokamak:stats(),
    Refs = [tokamak:async(sleep, [60000]) || _ <- lists:seq(1, 1000)],
    [{error, overloaded} = tokamak:call(sleep, [0]) || _ <- lists:seq(1, 3)],
    ?assertMatch(#{runtime := #{refused := N}} when N =:= Before + 3, tokamak:stats()),
    lists:foreach(fun tokamak:cancel/1, Refs).

loops_count_what_goes_through_them() ->
    {ok, Loop} = tokamak_loop:open(#{}),
    Before = loop_totals(),
    [ok = tokamak_loop:post(Loop, 1, user, N) || N <- lists:seq(1, 10)],
    _ = tokamak_loop:start_timer(Loop, 60000, 1),
    ?assertMatch(#{pushed := 10, drained := 0, queued := 10, timers := 1, wakes := 1}, since(Before)),
    {empty, Events} = tokamak_loop:drain(Loop),
    ?assertEqual(10, length(Events)),
    ?assertMatch(#{pushed := 10, drained := 10, queued := 0}, since(Before)),
    #{loop_info := Infos} = tokamak:stats(),
    ?assertMatch([#{pushed := 10, drained := 10, timers := 1}], [I || #{loop := L} = I <- Infos, L =:= Loop]),
    close(Loop).

what_ended_loops_counted_stays_in_the_totals() ->
    Before = loop_totals(),
    {ok, Loop} = tokamak_loop:open(#{}),
    [ok = tokamak_loop:post(Loop, 1, user, N) || N <- lists:seq(1, 10)],
    {empty, _} = tokamak_loop:drain(Loop),
    ok = tokamak_loop:post(Loop, 1, user, left),
    close(Loop),
    ?assertMatch(#{pushed := 11, drained := 11, queued := 0}, since(Before)).

refused_events_and_timers_are_counted() ->
    {ok, Loop} = tokamak_loop:open(#{max_queue => 2, max_timers => 1}),
    Before = loop_totals(),
    _ = tokamak_loop:start_timer(Loop, 60000, 1),
    {error, overloaded} = tokamak_loop:start_timer(Loop, 60000, 1),
    [ok = tokamak_loop:post(Loop, 1, user, N) || N <- [1, 2]],
    {error, overloaded} = tokamak_loop:post(Loop, 1, user, 3),
    {error, overloaded} = tokamak_loop:submit_many(Loop, [{1, sleep, [0]}, {2, sleep, [0]}]),
    ?assertMatch(#{refused := 4, pushed := 2}, since(Before)),
    close(Loop).

one_wake_in_eight_is_timed() ->
    wait_for_clock(),
    {ok, Loop} = tokamak_loop:open(#{}),
    #{wake_to_drain := #{count := Count, sampled := Sampled}} = tokamak:stats(),
    [post_and_drain(Loop, 0) || _ <- lists:seq(1, 10 * ?WAKE_SAMPLE)],
    #{wake_to_drain := #{count := CountAfter, sampled := SampledAfter}} = tokamak:stats(),
    ?assertEqual({80, 10}, {CountAfter - Count, SampledAfter - Sampled}),
    close(Loop).

the_time_from_wake_to_drain_is_that_of_the_consumer() ->
    wait_for_clock(),
    {ok, Loop} = tokamak_loop:open(#{}),
    #{wake_to_drain := Before} = tokamak_stats:stats(),
    ok = post_and_drain(Loop, 30),
    #{wake_to_drain := After} = tokamak_stats:stats(),
    {1, ?WAKE_SAMPLE, {Sum, [{End, 1}]}} = tokamak_stats:since(Before, After),
    ?assert(Sum >= 30_000_000),
    ?assert(Sum < End),
    close(Loop).

%% The consumer comes after so many milliseconds.
post_and_drain(Loop, Delay) ->
    ok = tokamak_loop:post(Loop, 1, user, event),
    receive
        {tokamak, Loop, ready} -> timer:sleep(Delay)
    end,
    {empty, [{1, user, event}]} = tokamak_loop:drain(Loop),
    ok.

runs_of_pools_are_counted_while_they_go_on_and_after() ->
    Before = pools(),
    Ref = tokamak_pool:start(fun(N) -> {ok, N, [M || M <- [2 * N, 2 * N + 1], M =< 10]} end, [1], #{}),
    until(fun() -> maps:get(succeeded, pools()) - maps:get(succeeded, Before) =:= 10 end),
    ?assertMatch(#{running := 1, started := 1, dispatched := 10, failed := 0}, since(Before, pools())),
    ?assertMatch([#{owner := Owner, succeeded := 10}] when Owner =:= self(), maps:get(pool_info, runtime())),
    ok = tokamak_pool:close(Ref),
    receive
        {tokamak, Ref, {finished, _}} -> ok
    after 5000 -> error(not_finished)
    end,
    ?assertMatch(#{running := 0, started := 1, dispatched := 10, succeeded := 10}, since(Before, pools())),
    ?assertEqual([], maps:get(pool_info, runtime())),
    flush(Ref).

flush(Ref) ->
    receive
        {tokamak, Ref, {results, _}} -> flush(Ref)
    after 0 -> ok
    end.

subprocesses_count_their_bytes() ->
    #{subprocess_totals := Before} = tokamak:stats(),
    {ok, P} = tokamak_subprocess:start(["cat"]),
    ok = tokamak_subprocess:write(P, <<"hello">>),
    {ok, {stdout, <<"hello">>}} = tokamak_subprocess:recv(P),
    #{subprocess_totals := Totals, subprocess_info := Infos} = tokamak:stats(),
    Bytes = maps:without([busy_polls, busy_polls_in_vain], since(Before, Totals)),
    ?assertEqual(#{started => 1, written => 5, stdout => 5, stderr => 0}, Bytes),
    ?assertMatch([#{written := 5, stdout := 5, state := running}], Infos),
    ok = tokamak_subprocess:close_stdin(P),
    {exit, 0} = tokamak_subprocess:recv(P),
    ?assertMatch(#{subprocess_info := []}, tokamak:stats()).

a_worker_that_is_busy_is_not_parked() ->
    {ok, _} = tokamak:call(op(nothing), []),
    Parked = fun() -> maps:get(parked, maps:get(tokamak_test_engine, maps:get(engines, tokamak:stats()))) end,
    until(fun() -> Parked() =:= 2 end),
    Ref = tokamak:async(op(hog), [300]),
    until(fun() -> Parked() < 2 end),
    {ok, _} = tokamak:await(Ref),
    until(fun() -> Parked() =:= 2 end).

%% Nothing is timed in the first moments, while the processor's counter is compared with the clock.
wait_for_clock() ->
    until(fun() ->
        {ok, _} = tokamak:call(list_dir, ["/"]),
        maps:get(sampled, maps:get(blocking, calls())) > 0
    end).

calls() ->
    maps:get(calls, tokamak:stats()).

counted_since(Before) ->
    Counts = fun(Calls) -> maps:map(fun(_Kind, #{count := Count}) -> Count end, Calls) end,
    since(Counts(Before), Counts(calls())).

loop_totals() ->
    maps:get(loop_totals, tokamak:stats()).

since(Before) ->
    since(Before, loop_totals()).

since(Before, After) ->
    maps:map(fun(Key, Value) -> Value - maps:get(Key, Before) end, After).

runtime() ->
    maps:get(runtime, tokamak:stats()).

pools() ->
    maps:get(pools, runtime()).

%% A raw loop is closed by its owner, whom nothing is sent any more.
close(Loop) ->
    ok = tokamak_loop:destroy(Loop),
    receive
        {tokamak, Loop, ready} -> ok
    after 0 -> ok
    end.
