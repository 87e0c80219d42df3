%% SPDX-License-Identifier: Apache-2.0
-module(tokamak_pool_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, until/1, elapsed/1, explanation/1, in_flight/0]).

pool_test_() ->
    call_fixture:tests([
        fun a_run_runs_all_that_its_seeds_lead_to_once/0,
        fun a_run_without_seeds_ends_at_once/0,
        fun an_operation_of_another_engine_runs_there/0,
        fun texts_are_items_that_need_no_terms/0,
        fun numbers_beyond_small_integers_are_items/0,
        fun paths_are_items_of_any_bytes/0,
        fun items_are_the_same_when_they_are_equal_terms/0,
        fun terms_of_any_size_are_deduplicated/0,
        fun an_items_error_is_its_result/0,
        fun wrong_items_and_wrong_returns_are_errors_of_the_item/0,
        fun the_first_error_ends_a_run_that_stops_on_errors/0,
        fun max_items_bounds_what_is_run/0,
        fun a_run_that_takes_too_long_is_ended/0,
        fun an_unknown_operation_and_a_stream_cannot_be_run/0,
        fun fold_folds_results/0,
        fun a_fold_whose_function_fails_leaves_nothing/0,
        fun two_hundred_thousand_seeds_are_taken/0,
        fun a_star_has_its_million_children/0,
        fun a_key_function_that_fails_leaves_no_run/0,
        fun wrong_arguments_are_explained/0,
        fun wrong_arguments_raise_from_the_function_that_was_called/0,
        fun the_death_of_the_owner_ends_a_run/0,
        fun a_run_ends_with_the_application/0
    ]).

a_run_runs_all_that_its_seeds_lead_to_once() ->
    Tree = {1, [{2, []}, {3, [{2, []}]}]},
    {ok, Results, Stats} = tokamak_pool:run({op, echo}, [Tree], #{}),
    ?assertEqual([{Tree, {ok, 1}}, {{2, []}, {ok, 2}}, {{3, [{2, []}]}, {ok, 3}}], lists:sort(Results)),
    ?assertEqual(#{dispatched => 3, succeeded => 3, failed => 0, duplicates => 1, refused => 0}, Stats).

a_run_without_seeds_ends_at_once() ->
    ?assertMatch({ok, [], #{dispatched := 0}}, tokamak_pool:run({op, echo}, [], #{})),
    ?assertMatch({ok, [], #{dispatched := 0}}, tokamak_pool:run(fun pool_graphs:tree/1, [], #{})).

an_operation_of_another_engine_runs_there() ->
    Seeds = [{7, 50, 0, 1}],
    {ok, Results, _} = tokamak_pool:run({op, op(random_graph)}, Seeds, #{workers => 4}),
    Expected = pool_graphs:sequential(fun pool_graphs:random_graph/1, Seeds),
    ?assertEqual(Expected, pool_graphs:results(Results)).

texts_are_items_that_need_no_terms() ->
    {ok, Results, Stats} = tokamak_pool:run({op, op(shorten)}, [<<"abc">>, <<"bc">>, <<"x!">>], #{}),
    Texts = [<<>>, <<"a">>, <<"ab">>, <<"abc">>, <<"b">>, <<"bc">>, <<"c">>],
    Expected = [{Text, {ok, byte_size(Text)}} || Text <- Texts] ++ [{<<"x!">>, {error, <<"x!">>}}],
    ?assertEqual(Expected, lists:sort(Results)),
    ?assertEqual(#{dispatched => 8, succeeded => 7, failed => 1, duplicates => 7, refused => 0}, Stats),
    Long = binary:copy(<<"a">>, 5000),
    {ok, Shorter, _} = tokamak_pool:run({op, op(shorten)}, [Long], #{}),
    ?assertEqual([{binary:part(Long, 0, Size), {ok, Size}} || Size <- lists:seq(0, 5000)], lists:sort(Shorter)).

numbers_beyond_small_integers_are_items() ->
    Max = 1 bsl 64 - 1,
    Seeds = [0, 1 bsl 62, 1 bsl 63, Max],
    {ok, Results, Stats} = tokamak_pool:run({op, op(mirror)}, Seeds, #{}),
    Numbers = lists:usort(Seeds ++ [Max - Seed || Seed <- Seeds]),
    ?assertEqual([{Number, {ok, Max - Number}} || Number <- Numbers], lists:sort(Results)),
    ?assertMatch(#{dispatched := 6, duplicates := 4}, Stats).

paths_are_items_of_any_bytes() ->
    {ok, Results, _} = tokamak_pool:run({op, op(parent)}, [<<"/a/", 255>>, "/a/b"], #{}),
    ?assertEqual(
        [{"/a/b", {ok, 4}}, {<<"/">>, {ok, 1}}, {<<"/a">>, {ok, 2}}, {<<"/a/", 255>>, {ok, 4}}],
        lists:sort(Results)
    ).

items_are_the_same_when_they_are_equal_terms() ->
    Distinct = [
        1, 1.0, a, <<"a">>, "a", [a], {a}, 1 bsl 70, -1 bsl 70, <<1:3>>, <<1:4>>, #{a => 1}, #{a => 1.0}, [],
        self(), make_ref(), fun lists:seq/2, binary:copy(<<"long">>, 5000)
    ],
    Again = [binary_to_term(term_to_binary(Item)) || Item <- Distinct],
    Handler = fun(Item) -> {ok, Item, Distinct ++ Again} end,
    {ok, Results, Stats} = tokamak_pool:run(Handler, Again, #{}),
    %% Not sorted: 1 and 1.0 sort the same.
    ?assertEqual([], [{Item, {ok, Item}} || Item <- Distinct] -- Results),
    ?assertEqual(18, length(Results)),
    ?assertMatch(#{dispatched := 18}, Stats).

terms_of_any_size_are_deduplicated() ->
    Large = [{N, lists:seq(1, 10000), maps:from_list([{I, I} || I <- lists:seq(1, 1000)])} || N <- [1, 2]],
    Run = fun(Item) -> {ok, element(1, Item), Large ++ Large} end,
    {ok, Results, #{dispatched := 2}} = tokamak_pool:run(Run, Large ++ Large, #{}),
    ?assertEqual([{ok, 1}, {ok, 2}], lists:sort([Result || {_, Result} <- Results])).

an_items_error_is_its_result() ->
    Seeds = [{3, 200, 300, N} || N <- lists:seq(0, 199)],
    {ok, Results, #{failed := Failed}} = tokamak_pool:run({op, op(random_graph)}, Seeds, #{}),
    Expected = pool_graphs:sequential(fun pool_graphs:random_graph/1, Seeds),
    ?assert(Failed > 10),
    ?assertEqual(Expected, pool_graphs:results(Results)).

wrong_items_and_wrong_returns_are_errors_of_the_item() ->
    ?assertMatch(
        {ok, [{a, {error, {badarg, "the item is not a " ++ _}}}], _}, tokamak_pool:run({op, op(tree)}, [a], #{})
    ),
    ?assertMatch(
        {ok, [{a, {error, {bad_return, _}}}], #{failed := 1}}, tokamak_pool:run({op, echo}, [a], #{})
    ),
    ?assertMatch({ok, [{{1, [2 | 3]}, {error, {bad_return, _}}}], _}, tokamak_pool:run({op, echo}, [{1, [2 | 3]}], #{})).

the_first_error_ends_a_run_that_stops_on_errors() ->
    Stop = #{on_error => stop},
    ?assertMatch({error, {a, {bad_return, _}}}, tokamak_pool:run({op, echo}, [{1, [a]}], Stop)),
    Fun = fun(N) when N < 10 -> {ok, N, [N + 1]}; (N) -> {error, {too_large, N}} end,
    ?assertEqual({error, {10, {too_large, 10}}}, tokamak_pool:run(Fun, [1], Stop)).

max_items_bounds_what_is_run() ->
    {ok, Results, Stats} = tokamak_pool:run({op, op(endless)}, [1], #{max_items => 1000}),
    ?assertEqual(1000, map_size(pool_graphs:results(Results))),
    ?assertMatch(#{dispatched := 1000, succeeded := 1000, refused := Refused} when Refused > 0, Stats).

a_run_that_takes_too_long_is_ended() ->
    {Elapsed, Result} = elapsed(fun() ->
        tokamak_pool:run({op, op(hangs)}, [1, 2, 3], #{timeout => 50})
    end),
    ?assertEqual({error, timeout}, Result),
    ?assert(Elapsed >= 50),
    ok = tokamak_test:in_time(Elapsed, 1000).

an_unknown_operation_and_a_stream_cannot_be_run() ->
    ?assertEqual({error, {unknown_operation, none}}, tokamak_pool:run({op, none}, [1], #{})),
    ?assertEqual({error, {unknown_operation, {none, none}}}, tokamak_pool:run({op, {none, none}}, [1], #{})),
    ?assertEqual({error, {wrong_kind, stream}}, tokamak_pool:run({op, count}, [1], #{})),
    NotOfOne = {badarg, "not an operation of one argument"},
    ?assertEqual({error, NotOfOne}, tokamak_pool:run({op, hash_file}, [1], #{})),
    Ref = tokamak_pool:start({op, hash_file}, [1], #{}),
    ?assertEqual({error, NotOfOne}, receive {tokamak, Ref, End} -> End after 5000 -> none end).

fold_folds_results() ->
    Sum = fun({_Item, {ok, Result}}, Acc) -> Acc + Result end,
    {ok, Total, #{succeeded := 100}} =
        tokamak_pool:fold(fun(N) -> {ok, N, [N + 1 || N < 100]} end, [1], Sum, 0, #{}),
    ?assertEqual(5050, Total).

a_fold_whose_function_fails_leaves_nothing() ->
    Fail = fun(_Result, _Acc) -> error(enough) end,
    ?assertError(enough, tokamak_pool:fold({op, op(endless)}, [1], Fail, 0, #{window => 1})),
    until(fun() -> in_flight() =:= 0 end).

two_hundred_thousand_seeds_are_taken() ->
    Seeds = [{N, []} || N <- lists:seq(1, 200000)],
    {ok, Results, _} = tokamak_pool:run({op, echo}, Seeds, #{}),
    ?assertEqual([{Seed, {ok, element(1, Seed)}} || Seed <- Seeds], lists:sort(Results)).

a_star_has_its_million_children() ->
    Count = fun(_Result, Count) -> Count + 1 end,
    ?assertMatch(
        {ok, 1000000, #{succeeded := 1000000}}, tokamak_pool:fold({op, op(star)}, [0], Count, 0, #{})
    ).

wrong_arguments_are_explained() ->
    Wrong = fun(Options) -> explanation(fun() -> tokamak_pool:run({op, echo}, [], Options) end) end,
    ?assertMatch(#{3 := _}, Wrong(#{unknown => 1})),
    ?assertMatch(#{3 := _}, Wrong(#{workers => 0})),
    ?assertMatch(#{3 := _}, Wrong(#{key => fun(Item) -> Item end})),
    ?assertMatch(#{3 := _}, Wrong(#{nodes => [], max_items => 1})),
    ?assertMatch(#{1 := _}, explanation(fun() -> tokamak_pool:run(echo, [], #{}) end)),
    ?assertMatch(#{2 := _}, explanation(fun() -> tokamak_pool:run({op, echo}, [1 | 2], #{}) end)),
    ?assertMatch(#{1 := _}, explanation(fun() -> tokamak_pool:ack(make_ref(), 1) end)),
    ?assertMatch(#{1 := _}, explanation(fun() -> tokamak_pool:add(make_ref(), []) end)),
    ?assertMatch(#{1 := _}, explanation(fun() -> tokamak_pool:close(make_ref()) end)),
    ?assertMatch(#{1 := _}, explanation(fun() -> tokamak_pool:cancel(make_ref()) end)).

a_key_function_that_fails_leaves_no_run() ->
    Key = fun(1) -> error(no_key); (Item) -> Item end,
    Handler = fun(Item) -> {ok, Item, []} end,
    [
        begin
            ?assertError(no_key, Start(Handler, [2, 1], maps:merge(#{key => Key}, Options))),
            %% The manager of the run's workers ends when it is told, which is after the run.
            until(fun() -> in_flight() =:= 0 andalso supervisor:which_children(tokamak_pool_sup) =:= [] end),
            ?assertEqual({messages, []}, process_info(self(), messages))
        end
     || Start <- [fun tokamak_pool:start/3, fun tokamak_pool:run/3], Options <- [#{}, #{nodes => [node()]}]
    ].

wrong_arguments_raise_from_the_function_that_was_called() ->
    Fun = fun(_Result, Acc) -> Acc end,
    Calls = [
        {run, [none, [], #{}]},
        {run, [{op, echo}, [], #{nodes => [node()], max_items => 1}]},
        {start, [{op, echo}, x, #{}]},
        {fold, [{op, echo}, x, Fun, 0, #{}]},
        {fold, [{op, echo}, [], none, 0, #{}]},
        {ack, [make_ref(), 1]},
        {add, [make_ref(), []]}
    ],
    [
        try apply(tokamak_pool, Function, Args) of
            Result -> error({no_badarg, Result})
        catch
            error:badarg:Stack -> ?assertMatch([{tokamak_pool, Function, Args, _} | _], Stack)
        end
     || {Function, Args} <- Calls
    ].

the_death_of_the_owner_ends_a_run() ->
    Self = self(),
    Start = fun() ->
        Self ! {started, tokamak_pool:start({op, op(hangs)}, [1, 2], #{})},
        receive
        after infinity -> ok
        end
    end,
    Owner = spawn(Start),
    Ref = receive {started, Started} -> Started end,
    exit(Owner, kill),
    {Elapsed, ok} = elapsed(fun() -> until(fun() -> in_flight() =:= 0 end) end),
    ?assertEqual({error, closed}, tokamak_pool:add(Ref, [3])),
    ok = tokamak_test:in_time(Elapsed, 100).

a_run_ends_with_the_application() ->
    ok = application:set_env(tokamak, drain_timeout, 10),
    Ref = tokamak_pool:start({op, op(hangs)}, [1, 2], #{}),
    ok = application:stop(tokamak),
    receive
        {tokamak, Ref, End} -> ?assertEqual({error, shutdown}, End)
    after 5000 -> error(no_end)
    end,
    %% Also where it is another engine's.
    ?assertEqual({error, closed}, tokamak_pool:add(Ref, [3])),
    [?assertEqual(ok, End(Ref)) || End <- [fun(R) -> tokamak_pool:ack(R, 1) end, fun tokamak_pool:close/1, fun tokamak_pool:cancel/1]],
    ?assertEqual({error, shutdown}, tokamak_pool:run({op, echo}, [1], #{})),
    ?assertEqual({error, shutdown}, tokamak_pool:run(fun(_) -> {ok, 1, []} end, [1], #{})),
    ok = application:start(tokamak).
