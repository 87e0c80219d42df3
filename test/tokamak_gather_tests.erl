%% SPDX-License-Identifier: Apache-2.0
-module(tokamak_gather_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, key/0, counted/1, live/1, until/1, elapsed/1, explanation/1, started/1, result/1]).

gather_test_() ->
    call_fixture:tests([
        fun results_come_in_the_order_of_the_calls/0,
        fun a_gather_of_nothing_is_done/0,
        fun calls_run_side_by_side/0,
        fun the_first_failure_cancels_the_rest_and_has_its_index/0,
        fun an_unknown_operation_is_a_failure_at_its_index/0,
        fun an_unknown_engine_is_a_failure_of_each_call/0,
        fun settle_returns_every_end/0,
        fun max_concurrency_bounds_how_many_run_at_once/0,
        fun a_huge_max_concurrency_is_no_bound/0,
        fun a_time_out_cancels_all/0,
        fun wrong_arguments_raise_before_anything_starts/0,
        fun a_thousand_calls_of_all_kinds/0,
        fun many_calls_are_started_on_a_dirty_scheduler/0,
        fun a_caller_that_dies_while_many_calls_are_started_leaves_none/0,
        fun engines_mix_in_the_order_of_the_calls/0,
        fun mixed_engines_fail_fast/0,
        fun mixed_engines_settle/0,
        fun mixed_engines_keep_max_concurrency/0,
        fun mixed_engines_time_out/0,
        fun wrong_arguments_of_mixed_engines_raise_before_anything_starts/0
    ]).

overload_test_() ->
    call_fixture:tests(#{max_in_flight => 10}, [
        fun a_gather_waits_for_places_instead_of_being_refused/0,
        fun a_gather_of_mixed_engines_waits_for_places_too/0,
        fun two_gathers_share_the_places/0
    ]).

results_come_in_the_order_of_the_calls() ->
    Calls = [{op(later), [N, (50 - N) * 100]} || N <- lists:seq(1, 50)],
    ?assertEqual({ok, lists:seq(1, 50)}, tokamak:gather(Calls)).

a_gather_of_nothing_is_done() ->
    ?assertEqual({ok, []}, tokamak:gather([])),
    ?assertEqual({ok, []}, tokamak:gather([], #{mode => settle, timeout => 0})).

calls_run_side_by_side() ->
    {Elapsed, Result} = elapsed(fun() -> tokamak:gather([{sleep, [50]} || _ <- lists:seq(1, 100)]) end),
    ?assertEqual({ok, [ok || _ <- lists:seq(1, 100)]}, Result),
    ok = tokamak_test:in_time(Elapsed, 500).

the_first_failure_cancels_the_rest_and_has_its_index() ->
    Key = key(),
    Calls = [{op(never), [Key]}, {op(never), [Key]}, {op(fails), [3]}, {op(never), [Key]}],
    ?assertEqual({error, {3, {exhausted, <<"no more">>}}}, tokamak:gather(Calls)),
    until(fun() -> live(Key) =:= 0 end).

an_unknown_operation_is_a_failure_at_its_index() ->
    ?assertEqual({error, {2, {unknown_operation, none}}}, tokamak:gather([{echo, [1]}, {none, []}])),
    ?assertEqual({error, {1, {wrong_kind, stream}}}, tokamak:gather([{count, [1, 1]}])),
    Settled = [{ok, 1}, {error, {unknown_operation, none}}],
    ?assertEqual({ok, Settled}, tokamak:gather([{echo, [1]}, {none, []}], #{mode => settle})).

an_unknown_engine_is_a_failure_of_each_call() ->
    Ops = [{no_such_module, x}, {no_such_module, y}],
    [First | _] = Errors = [{error, {unknown_operation, Op}} || Op <- Ops],
    Calls = [{Op, []} || Op <- Ops],
    ?assertEqual({ok, Errors}, tokamak:gather(Calls, #{mode => settle})),
    ?assertEqual({error, {1, element(2, First)}}, tokamak:gather(Calls)).

settle_returns_every_end() ->
    Calls = [{op(fails), [0]}, {op(fails), [1]}, {op(panics), [<<"p">>]}, {op(unencodable), []}],
    Ends = [
        {ok, 0},
        {error, {not_found, <<"there is no key">>}},
        {error, {panic, <<"p">>}},
        {error, {encode, <<"in the encoder">>}}
    ],
    ?assertEqual({ok, Ends}, tokamak:gather(Calls, #{mode => settle})).

max_concurrency_bounds_how_many_run_at_once() ->
    Key = key(),
    Calls = [{op(block), [Key, 2]} || _ <- lists:seq(1, 30)],
    ?assertMatch({ok, _}, tokamak:gather(Calls, #{max_concurrency => 3})),
    ?assertEqual({0, 3, 30}, counted(Key)).

a_huge_max_concurrency_is_no_bound() ->
    ?assertEqual({ok, [1]}, tokamak:gather([{echo, [1]}], #{max_concurrency => 16#7FFFFFFF})),
    ?assertError(badarg, tokamak:gather([{echo, [1]}], #{max_concurrency => 1 bsl 62})).

a_time_out_cancels_all() ->
    Key = key(),
    Calls = [{op(never), [Key]} || _ <- lists:seq(1, 10)],
    ?assertEqual({error, timeout}, tokamak:gather(Calls, #{timeout => 20})),
    until(fun() -> live(Key) =:= 0 end),
    ?assertEqual({error, timeout}, tokamak:gather(Calls, #{timeout => 20, max_concurrency => 2})),
    until(fun() -> live(Key) =:= 0 end).

wrong_arguments_raise_before_anything_starts() ->
    Key = key(),
    Calls = [{op(two_at_once), [Key, 0]}, {op(two_at_once), [Key, wrong]}],
    Explained = #{1 => "in call 2, the argument list: its element 2 is not a u64"},
    ?assertEqual(Explained, explanation(fun() -> tokamak:gather(Calls) end)),
    ?assertEqual({0, 0, 0}, counted(Key)).

a_thousand_calls_of_all_kinds() ->
    Names = [later, later_in_runtime],
    Calls = [{op(Name), [N, N rem 200]} || N <- lists:seq(1, 500), Name <- Names],
    ?assertEqual({ok, [N || N <- lists:seq(1, 500), _ <- Names]}, tokamak:gather(Calls)),
    Limited = tokamak:gather(Calls, #{max_concurrency => 7}),
    ?assertEqual({ok, [N || N <- lists:seq(1, 500), _ <- Names]}, Limited).

many_calls_are_started_on_a_dirty_scheduler() ->
    Gather = fun(Count) ->
        Numbers = lists:seq(1, Count),
        {ok, Numbers} = tokamak:gather([{echo, [N]} || N <- Numbers])
    end,
    ?assert(call_fixture:calls_native(op_gather_many, 4, fun() -> Gather(5000) end)),
    ?assertNot(call_fixture:calls_native(op_gather_many, 4, fun() -> Gather(100) end)).

a_caller_that_dies_while_many_calls_are_started_leaves_none() ->
    Key = key(),
    Calls = [{op(never), [Key]} || _ <- lists:seq(1, 20000)],
    [
        begin
            Caller = spawn(fun() -> tokamak:gather(Calls) end),
            timer:sleep(Milliseconds),
            exit(Caller, kill)
        end
     || Milliseconds <- lists:seq(0, 20)
    ],
    until(fun() -> live(Key) =:= 0 andalso call_fixture:in_flight() =:= 0 end).

engines_mix_in_the_order_of_the_calls() ->
    Calls = [Call || N <- lists:seq(1, 50), Call <- [{op(later), [N, (50 - N) * 20]}, {echo, [-N]}]],
    ?assertEqual({ok, [R || N <- lists:seq(1, 50), R <- [N, -N]]}, tokamak:gather(Calls)).

mixed_engines_fail_fast() ->
    Key = key(),
    Calls = [{op(never), [Key]}, {sleep, [60000]}, {op(fails), [3]}],
    ?assertEqual({error, {3, {exhausted, <<"no more">>}}}, tokamak:gather(Calls)),
    ?assertEqual({error, {2, {unknown_operation, none}}}, tokamak:gather([{op(never), [Key]}, {none, []}])),
    until(fun() -> live(Key) =:= 0 andalso call_fixture:in_flight() =:= 0 end).

mixed_engines_settle() ->
    Calls = [{echo, [1]}, {op(panics), [<<"p">>]}, {{no_such_module, name}, []}],
    Ends = [{ok, 1}, {error, {panic, <<"p">>}}, {error, {unknown_operation, {no_such_module, name}}}],
    ?assertEqual({ok, Ends}, tokamak:gather(Calls, #{mode => settle})).

mixed_engines_keep_max_concurrency() ->
    Key = key(),
    Calls = [{echo, [1]}, {sleep, [0]} | [{op(block), [Key, 2]} || _ <- lists:seq(1, 20)]],
    ?assertMatch({ok, [1, ok | _]}, tokamak:gather(Calls, #{max_concurrency => 3})),
    ?assertEqual({0, 3, 20}, counted(Key)).

mixed_engines_time_out() ->
    Key = key(),
    Calls = [{echo, [1]}, {op(never), [Key]}, {sleep, [60000]}],
    ?assertEqual({error, timeout}, tokamak:gather(Calls, #{timeout => 20})),
    until(fun() -> live(Key) =:= 0 end).

wrong_arguments_of_mixed_engines_raise_before_anything_starts() ->
    Key = key(),
    Calls = [{op(two_at_once), [Key, 0]}, {sleep, [wrong]}],
    Explained = #{1 => "in call 2, the argument list: its element 1 is not a u64"},
    ?assertEqual(Explained, explanation(fun() -> tokamak:gather(Calls) end)),
    ?assertEqual({0, 0, 0}, counted(Key)).

a_gather_waits_for_places_instead_of_being_refused() ->
    Key = key(),
    Calls = [{op(block), [Key, 1]} || _ <- lists:seq(1, 100)],
    ?assertEqual({ok, [ok || _ <- Calls]}, tokamak:gather(Calls)),
    {0, Most, 100} = counted(Key),
    ?assert(Most =< 10).

a_gather_of_mixed_engines_waits_for_places_too() ->
    Calls = [Call || N <- lists:seq(1, 50), Call <- [{op(later_in_runtime), [N, 100]}, {sleep, [1]}]],
    ?assertEqual({ok, [R || N <- lists:seq(1, 50), R <- [N, ok]]}, tokamak:gather(Calls)).

two_gathers_share_the_places() ->
    Calls = [{op(later_in_runtime), [N, 500]} || N <- lists:seq(1, 100)],
    Others = [started(fun() -> tokamak:gather(Calls) end) || _ <- [1, 2, 3]],
    ?assertEqual({ok, lists:seq(1, 100)}, tokamak:gather(Calls)),
    [?assertEqual({ok, lists:seq(1, 100)}, result(Other)) || Other <- Others].
