%% SPDX-License-Identifier: Apache-2.0
-module(tokamak_call_failure_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, key/0, counted/1, live/1, until/1, elapsed/1, started/1, result/1]).

failure_test_() ->
    call_fixture:tests([
        fun an_error_keeps_its_kind_and_its_text/0,
        fun an_error_of_the_operating_system_has_its_posix_name/0,
        fun an_unknown_operation_is_named_as_the_caller_named_it/0,
        fun an_operation_of_the_wrong_kind_is_an_error/0,
        fun a_panic_is_an_error_within_100_ms_wherever_it_happens/0,
        fun a_panic_in_a_drop_harms_nobody/0,
        fun a_result_whose_drop_panics_is_sent_once/0,
        fun a_gather_of_results_whose_drops_panic_is_sent/0,
        fun items_whose_drops_panic_are_taken_and_dropped/0,
        fun items_that_spawn_when_they_are_dropped_are_taken_and_dropped/0,
        fun a_pending_call_that_spawns_when_it_is_dropped_is_cancelled/0,
        fun a_value_that_cannot_be_encoded_is_an_error_within_100_ms/0,
        fun the_runtime_goes_on_after_a_thousand_panics/0
    ]).

overload_test_() ->
    call_fixture:tests(#{max_in_flight => 10}, [
        fun a_call_beyond_the_limit_is_refused_at_once/0,
        fun a_place_comes_back_with_each_end/0,
        fun a_refused_eager_call_that_spawns_when_it_is_dropped_is_refused/0,
        fun an_eager_call_that_is_ready_takes_no_place/0
    ]).

shutdown_test_() ->
    call_fixture:tests(#{drain_timeout => 50}, [
        fun calls_in_flight_end_with_shutdown_after_the_drain/0,
        fun a_call_that_ends_during_the_drain_has_its_result/0,
        fun a_gather_that_ends_during_the_drain_has_its_results/0,
        fun a_stopped_application_refuses_calls/0,
        fun a_blocking_call_that_never_returns_does_not_hold_the_stop/0,
        fun no_engine_starts_while_the_application_stops/0,
        fun the_application_starts_again_and_again_under_load/0
    ]).

an_error_keeps_its_kind_and_its_text() ->
    ?assertEqual({ok, 0}, tokamak:call(op(fails), [0])),
    ?assertEqual({error, {not_found, <<"there is no key">>}}, tokamak:call(op(fails), [1])),
    ?assertEqual({error, {limit_reached, <<"it holds 7 at most">>}}, tokamak:call(op(fails), [2])),
    ?assertEqual({error, {exhausted, <<"no more">>}}, tokamak:call(op(fails_eagerly), [])),
    ?assertEqual({error, <<"just so">>}, tokamak:call(op(fails_with_text), [<<"just so">>])).

an_error_of_the_operating_system_has_its_posix_name() ->
    ?assertMatch({error, {enoent, <<_/binary>>}}, tokamak:call(op(fails_with_io), [])).

an_unknown_operation_is_named_as_the_caller_named_it() ->
    [
        ?assertEqual({error, {unknown_operation, Op}}, tokamak:call(Op, Args))
     || Op <- [none, op(none), {no_such_module, none}, {lists, map}], Args <- [[], [1]]
    ].

an_operation_of_the_wrong_kind_is_an_error() ->
    ?assertEqual({error, {wrong_kind, stream}}, tokamak:call(count, [1, 1])),
    ?assertEqual({error, {wrong_kind, duplex}}, tokamak:call(op(sums), [1])),
    ?assertEqual({error, {wrong_kind, eager}}, tokamak:stream(echo, [1])),
    ?assertEqual({error, {wrong_kind, stream}}, tokamak:open(count, [1, 1])).

a_panic_is_an_error_within_100_ms_wherever_it_happens() ->
    Text = <<"oh no">>,
    [
        ends_soon({error, {panic, Text}}, op(Name), [Text])
     || Name <- [panics, panics_eagerly, panics_blocking]
    ],
    ends_soon({error, {panic, <<"a panic without a text">>}}, op(panics_strangely), []),
    ends_soon({error, {panic, <<"in the decoder">>}}, op(panics_in_argument), [1]),
    ends_soon({error, {panic, <<"in the decoder">>}}, op(panics_in_argument_eagerly), [1]).

a_panic_in_a_drop_harms_nobody() ->
    ?assertEqual({error, timeout}, tokamak:call(op(panics_when_cancelled), [], #{timeout => 10})),
    ok = tokamak:cancel(tokamak:async(op(panics_when_cancelled), [])),
    ?assertEqual({ok, 3}, tokamak:call(op(yields), [3])).

a_result_whose_drop_panics_is_sent_once() ->
    Ref = tokamak:async(op(panics_when_sent), []),
    ?assertEqual({ok, 1}, tokamak:await(Ref)),
    ?assertMatch({error, _}, tokamak:await(Ref, 100)),
    ?assertEqual({ok, 1}, tokamak:call(op(panics_when_sent), [])).

a_gather_of_results_whose_drops_panic_is_sent() ->
    Calls = [{op(panics_when_sent), []} || _ <- [1, 2, 3]],
    ?assertEqual({ok, [1, 1, 1]}, tokamak:gather(Calls)),
    ?assertMatch({error, {4, _}}, tokamak:gather(Calls ++ [{op(fails), [3]}])).

items_whose_drops_panic_are_taken_and_dropped() ->
    Stream = tokamak:stream(op(items_that_panic_on_drop), []),
    ?assertEqual([{ok, 1} || _ <- lists:seq(1, 20)], [tokamak:next(Stream) || _ <- lists:seq(1, 20)]),
    ?assertEqual(ok, tokamak:close(Stream)).

items_that_spawn_when_they_are_dropped_are_taken_and_dropped() ->
    Key = key(),
    Stream = tokamak:stream(op(items_that_spawn_on_drop), [Key]),
    ?assertEqual({ok, 1}, tokamak:next(Stream)),
    until(fun() -> live(Key) >= 2 end),
    ?assertEqual(ok, tokamak:close(Stream)),
    until(fun() -> live(Key) =:= 0 end),
    Owner = started(fun() ->
        {ok, 1} = tokamak:next(tokamak:stream(op(items_that_spawn_on_drop), [Key])),
        until(fun() -> live(Key) >= 2 end)
    end),
    ok = result(Owner),
    until(fun() -> live(Key) =:= 0 end).

a_pending_call_that_spawns_when_it_is_dropped_is_cancelled() ->
    Key = key(),
    ?assertEqual({error, timeout}, tokamak:call(op(spawns_when_cancelled), [Key], #{timeout => 0})),
    %% Its handle is dropped, and it was never waited for.
    {pending, _} = tokamak_test_engine:op_call(spawns_when_cancelled, [Key]),
    Owner = started(fun() -> {pending, _} = tokamak_test_engine:op_call(spawns_when_cancelled, [Key]) end),
    {pending, _} = result(Owner),
    until(fun() ->
        erlang:garbage_collect(),
        has_dropped(Key, 3)
    end).

has_dropped(Key, Count) ->
    {Live, _Most, All} = counted(Key),
    {Live, All} =:= {0, Count}.

a_value_that_cannot_be_encoded_is_an_error_within_100_ms() ->
    [
        ends_soon({error, {encode, <<"in the encoder">>}}, op(Name), [])
     || Name <- [unencodable, unencodable_eagerly, unencodable_blocking]
    ].

%% By call, by async, and as part of a gather.
ends_soon(End, Op, Args) ->
    {Call, Called} = elapsed(fun() -> tokamak:call(Op, Args) end),
    {Async, Awaited} = elapsed(fun() -> tokamak:await(tokamak:async(Op, Args)) end),
    ?assertEqual({Op, End, End}, {Op, Called, Awaited}),
    ?assertEqual({ok, [{ok, 1}, End]}, tokamak:gather([{op(yields), [1]}, {Op, Args}], #{mode => settle})),
    ok = tokamak_test:in_time(max(Call, Async), 100).

the_runtime_goes_on_after_a_thousand_panics() ->
    Refs = [tokamak:async(op(panics), [<<"again">>]) || _ <- lists:seq(1, 1000)],
    [{error, {panic, <<"again">>}} = tokamak:await(Ref) || Ref <- Refs],
    ?assertEqual({ok, ok}, tokamak:call(op(block), [key(), 1])),
    ?assertEqual({ok, 10}, tokamak:call(op(yields), [10])).

a_call_beyond_the_limit_is_refused_at_once() ->
    {ok, _} = tokamak:call(op(later), [0, 0]),
    Refs = [tokamak:async(op(never), [key()]) || _ <- lists:seq(1, 10)],
    Refused = {error, overloaded},
    {Elapsed, _} = elapsed(fun() ->
        ?assertEqual(Refused, tokamak:call(op(never), [key()])),
        ?assertEqual(Refused, tokamak:call(op(never_eagerly), [key()])),
        ?assertEqual(Refused, tokamak:await(tokamak:async(op(never), [key()]))),
        ?assertEqual(Refused, tokamak:cast(op(never), [key()])),
        ?assertEqual(Refused, tokamak:stream(op(numbers), [key()])),
        ?assertEqual(Refused, tokamak:open(op(sums), [0]))
    end),
    lists:foreach(fun tokamak:cancel/1, Refs),
    ?assertEqual({ok, 1}, tokamak:call(op(yields), [1])),
    ok = tokamak_test:in_time(Elapsed, 100).

a_place_comes_back_with_each_end() ->
    [{ok, 1} = tokamak:call(op(yields), [1]) || _ <- lists:seq(1, 100)],
    [{error, _} = tokamak:call(op(panics), [<<"panic">>]) || _ <- lists:seq(1, 100)],
    [{error, _} = tokamak:call(op(unencodable), []) || _ <- lists:seq(1, 100)],
    [{error, timeout} = tokamak:call(op(never), [0], #{timeout => 0}) || _ <- lists:seq(1, 100)],
    [?assertError(badarg, tokamak:call(op(yields), [wrong])) || _ <- lists:seq(1, 100)],
    [ok = tokamak:close(tokamak:stream(op(numbers), [0])) || _ <- lists:seq(1, 100)],
    [ok = tokamak:close(tokamak:open(op(sums), [0])) || _ <- lists:seq(1, 100)],
    ?assertEqual(0, call_fixture:in_flight()).

a_refused_eager_call_that_spawns_when_it_is_dropped_is_refused() ->
    Refs = [tokamak:async(op(never), [key()]) || _ <- lists:seq(1, 10)],
    Key = key(),
    ?assertEqual({error, overloaded}, tokamak:call(op(spawns_when_cancelled), [Key])),
    ?assertEqual({error, overloaded}, tokamak:await(tokamak:async(op(spawns_when_cancelled), [Key]))),
    until(fun() -> has_dropped(Key, 2) end),
    lists:foreach(fun tokamak:cancel/1, Refs).

an_eager_call_that_is_ready_takes_no_place() ->
    Refs = [tokamak:async(op(never), [key()]) || _ <- lists:seq(1, 10)],
    ?assertEqual({ok, 1}, tokamak:call(op(later), [1, 0])),
    lists:foreach(fun tokamak:cancel/1, Refs).

calls_in_flight_end_with_shutdown_after_the_drain() ->
    Ops = [{op(never), [0]}, {op(never_eagerly), [0]}, {sleep, [60000]}, {op(two_at_once), [0, 60000]}],
    Refs = [tokamak:async(Op, Args) || {Op, Args} <- Ops ++ Ops],
    Stream = tokamak:stream(op(silence), [0]),
    Gather = started(fun() -> tokamak:gather([{op(never), [0]}, {op(never), [0]}]) end),
    Mixed = started(fun() -> tokamak:gather([{op(never), [0]}, {sleep, [60000]}]) end),
    Waits = started(fun() -> tokamak:next(tokamak:stream(op(silence), [0]), infinity) end),
    until(fun() -> call_fixture:in_flight() >= 14 end),
    {Elapsed, ok} = elapsed(fun() -> application:stop(tokamak) end),
    [?assertEqual({error, shutdown}, tokamak:await(Ref, 0)) || Ref <- Refs],
    ?assertEqual({error, shutdown}, tokamak:next(Stream)),
    ?assertEqual({error, closed}, tokamak:next(Stream)),
    ?assertEqual({error, shutdown}, result(Gather)),
    ?assertMatch({error, {_, shutdown}}, result(Mixed)),
    ?assertEqual({error, shutdown}, result(Waits)),
    ok = application:start(tokamak),
    ok = tokamak_test:in_time(Elapsed, 500).

a_call_that_ends_during_the_drain_has_its_result() ->
    Ref = tokamak:async(op(later_in_runtime), [1, 20000]),
    ok = application:stop(tokamak),
    ?assertEqual({ok, 1}, tokamak:await(Ref, 0)),
    ok = application:start(tokamak).

%% Many end in the same moment, and some of them last of all.
a_gather_that_ends_during_the_drain_has_its_results() ->
    ok = application:set_env(tokamak, drain_timeout, 20000),
    Numbers = lists:seq(1, 10),
    Calls = [{op(later_in_runtime), [N, 2000000]} || N <- Numbers],
    Gather = fun(Options) -> started(fun() -> tokamak:gather(Calls, Options) end) end,
    [
        begin
            Gathers = [Gather(Options) || Options <- [#{max_concurrency => 5} | lists:duplicate(50, #{})]],
            until(fun() -> call_fixture:in_flight() >= 505 end),
            ok = application:stop(tokamak),
            [?assertEqual({ok, Numbers}, result(Each)) || Each <- Gathers],
            ok = application:start(tokamak)
        end
     || _ <- [1, 2]
    ],
    ok = application:set_env(tokamak, drain_timeout, 50).

a_stopped_application_refuses_calls() ->
    Refused = {error, shutdown},
    {ok, _} = tokamak:call(op(later), [0, 0]),
    ok = application:stop(tokamak),
    [
        begin
            ?assertEqual(Refused, tokamak:call(Op, [1])),
            ?assertEqual(Refused, tokamak:await(tokamak:async(Op, [1]))),
            ?assertEqual(Refused, tokamak:cast(Op, [1])),
            ?assertEqual(Refused, tokamak:gather([{Op, [1]}, {Op, [1]}]))
        end
     || Op <- [echo, sleep, op(yields)]
    ],
    ?assertEqual(Refused, tokamak:stream(count, [1, 0])),
    ?assertEqual(Refused, tokamak:open(op(sums), [1])),
    ?assertMatch(#{in_flight := 0, runtime := #{workers := 0}}, tokamak:stats()),
    ok = application:start(tokamak).

a_blocking_call_that_never_returns_does_not_hold_the_stop() ->
    Ref = tokamak:async(op(block), [0, 2000]),
    until(fun() -> live(0) >= 1 end),
    {Elapsed, ok} = elapsed(fun() -> application:stop(tokamak) end),
    ?assertEqual({error, shutdown}, tokamak:await(Ref, 0)),
    ok = application:start(tokamak),
    ok = tokamak_test:in_time(Elapsed, 1000).

no_engine_starts_while_the_application_stops() ->
    ok = tokamak_engines:stop_runtimes(),
    ?assertEqual({error, shutdown}, tokamak:call(op(later), [0, 0])),
    ?assertEqual({error, shutdown}, tokamak:call(echo, [0])),
    ok = application:stop(tokamak),
    ok = application:start(tokamak),
    ?assertEqual({ok, 0}, tokamak:call(op(later), [0, 0])).

%% Every caller has exactly one end for each of its calls, whatever happens meanwhile.
the_application_starts_again_and_again_under_load() ->
    Callers = [started(fun() -> call_until_stopped(N) end) || N <- lists:seq(1, 20)],
    [
        begin
            ok = application:stop(tokamak),
            ok = application:start(tokamak)
        end
     || _ <- lists:seq(1, 10)
    ],
    [Caller ! stop || Caller <- Callers],
    [?assertEqual({messages, []}, result(Caller)) || Caller <- Callers].

call_until_stopped(N) ->
    [check_end(tokamak:call(op(Name), [1, N * 10])) || Name <- [later, later_in_runtime]],
    [check_end(tokamak:await(tokamak:async(op(Name), [1, N * 10]))) || Name <- [later, later_in_runtime]],
    case tokamak:gather([{op(later_in_runtime), [1, N]} || _ <- [1, 2]]) of
        {ok, [1, 1]} -> ok;
        {error, shutdown} -> ok;
        {error, {_, shutdown}} -> ok
    end,
    receive
        stop -> process_info(self(), messages)
    after 0 -> call_until_stopped(N)
    end.

check_end({ok, 1}) -> ok;
check_end({error, shutdown}) -> ok.
